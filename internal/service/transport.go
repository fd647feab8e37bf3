package service

import (
	"net"
	"net/http"
	"time"
)

// DialTimeout bounds how long a connection to the service may take to be made.
const DialTimeout = 5 * time.Second

// NewTransport returns the transport of calls to one instance: HTTP/1.1 connections that
// are kept alive, idle so many at most.
func NewTransport(idle int) *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: DialTimeout, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
		MaxIdleConns:          0, // there is one host, which is bounded
		MaxIdleConnsPerHost:   idle,
		IdleConnTimeout:       90 * time.Second,
	}
}
