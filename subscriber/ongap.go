package subscriber

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/ots"
)

// OnGap says what a subscription does when its tunnel cannot continue: changes were deleted
// from the log before they were read (ots.ErrGap), the tunnel has expired
// (ots.ErrTunnelExpired), or it does not exist any more (ots.ErrTunnelGone).
type OnGap uint8

const (
	// OnGapFail ends the subscription with the error. It is the default.
	OnGapFail OnGap = iota

	// OnGapRecreate replaces the tunnel by a BaseAndStream tunnel of the same name, and the
	// subscription continues with that: all rows of the table are delivered again, then all
	// changes since. The same output or handler gets them. Rows that were deleted meanwhile are not
	// among them; docs/gaps.md says how a sink finds them, by Phase.Snapshot and
	// MetadataSnapshot.
	//
	// Any number of processes may do this at once: one creates the tunnel, and the others find
	// it. A process that crashes at any step leaves nothing that the next start does
	// not repair. So Subscribe and Handle also create a tunnel that does not exist, and replace
	// one that has expired.
	//
	// The access key needs the rights to describe, to delete and to create the tunnel. If a
	// step cannot succeed (no such right, no such table), or after MaxRecreations within
	// RecreateWindow, the subscription ends as with OnGapFail.
	OnGapRecreate
)

// MaxRecreations is how many times a subscription continues with another tunnel within
// RecreateWindow. The next time it ends, with an error that wraps ErrRecreateLimit.
const (
	MaxRecreations = 3
	RecreateWindow = time.Hour
)

// ErrRecreateLimit is wrapped by the error that ends a subscription with OnGapRecreate whose
// tunnel could not continue more than MaxRecreations times within RecreateWindow. The
// error also wraps the latest cause, such as ots.ErrGap.
var ErrRecreateLimit = errors.New("the tunnel was recreated too often")

// String returns "fail" or "recreate".
func (o OnGap) String() string {
	switch o {
	case OnGapFail:
		return "fail"
	case OnGapRecreate:
		return "recreate"
	}
	return "OnGap(" + strconv.Itoa(int(o)) + ")"
}

// onGapFaults returns what does not go together with OnGap. A tunnel that is recreated begins
// with all rows, at its creation, and has no end.
func (c Config) onGapFaults() (faults []error) {
	if c.OnGap > OnGapRecreate {
		return []error{fmt.Errorf("Config.OnGap is %d: take OnGapFail or OnGapRecreate", c.OnGap)}
	}
	if c.OnGap != OnGapRecreate {
		return nil
	}
	if c.Tunnel.Type == BaseData {
		faults = append(faults, errors.New("Config.Tunnel.Type is BaseData, which excludes OnGapRecreate: what it recreates is BaseAndStream; repeat a backfill with a tunnel of another name"))
	}
	for _, f := range []struct {
		field string
		set   bool
	}{{"Start", !c.Tunnel.Start.IsZero()}, {"Earliest", c.Tunnel.Earliest}, {"End", !c.Tunnel.End.IsZero()}} {
		if f.set {
			faults = append(faults, fmt.Errorf("Config.Tunnel.%s excludes OnGapRecreate: the tunnels that it creates begin with all rows, at their creation, and have no end", f.field))
		}
	}
	return faults
}

// created is what Initialize and OnGapRecreate create. With OnGapRecreate that is BaseAndStream
// whatever the configuration says: a tunnel that does not exist may be one that another
// process has deleted and could not create again, so that only all rows make up for what is lost.
func (c *Config) created() TunnelSpec {
	if c.OnGap == OnGapRecreate {
		return TunnelSpec{Type: BaseAndStream}
	}
	return c.Tunnel
}

// heals reports whether OnGapRecreate recreates the tunnel because of err.
func (c *Config) heals(err error) bool {
	return c.OnGap == OnGapRecreate && (errors.Is(err, ots.ErrGap) || errors.Is(err, ots.ErrTunnelExpired) || errors.Is(err, ots.ErrTunnelGone))
}

// checkRecreatable refuses tunnels that OnGapRecreate could not replace by one that delivers
// at least as much, at the start rather than when it is needed.
func (s *Subscriber) checkRecreatable(info *tunnel.TunnelInfo) error {
	switch {
	case s.cfg.OnGap != OnGapRecreate:
		return nil
	case TunnelType(info.TunnelType) == BaseData:
		return fmt.Errorf("%w: the tunnel is of type BaseData, and OnGapRecreate is for Stream and BaseAndStream", ErrTunnelType)
	case !endOf(info).IsZero():
		return fmt.Errorf("%w: the tunnel ends at %v, and OnGapRecreate is for tunnels without an end", ErrTunnelType, endOf(info).UTC().Format(time.RFC3339))
	case info.CreateTime.UnixNano() <= 0:
		return fmt.Errorf("%w: the service does not say when the tunnel was created, which OnGapRecreate needs to tell one snapshot from another", ErrTunnelType)
	}
	return nil
}

// snapshotOf names a tunnel among those of the same name with OnGapRecreate: the time of its
// creation, in nanoseconds. It is empty with OnGapFail.
func (c *Config) snapshotOf(info *tunnel.TunnelInfo) string {
	if c.OnGap != OnGapRecreate {
		return ""
	}
	return strconv.FormatInt(info.CreateTime.UnixNano(), 10)
}
