package router

import (
	"net/http"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/watermill-ots/watermill-ots/subscriber"
)

// SetRecreatePause sets the first pause between two tries to recreate a tunnel.
func SetRecreatePause(r *Router, d time.Duration) { r.recreatePause = d }

// SetPatience sets how long pipelines that are subscribed wait for the others.
func SetPatience(r *Router, d time.Duration) { r.patience = d }

// SubscriberConfig returns what the subscriber of a tunnel is made with.
func SubscriberConfig(r *Router, tunnel string) subscriber.Config { return r.subscriberConfig(tunnel) }

// Stopping reports whether the drain has begun.
func Stopping(r *Router) bool {
	select {
	case <-r.stopping:
		return true
	default:
		return false
	}
}

// PanicLog is panicLog.
type PanicLog struct{ log panicLog }

// Contain is panicLog.contain, to be deferred.
func (p *PanicLog) Contain(logger watermill.LoggerAdapter, name string) {
	if v := recover(); v != nil {
		defer p.log.contain(logger, name)
		panic(v)
	}
}

// SetTransport sets what carries the calls to an instance.
func SetTransport(r *Router, instance string, rt http.RoundTripper) { r.transports[instance] = rt }
