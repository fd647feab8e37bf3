package service

import (
	"net"
	"net/http"
	"time"
)

// DialTimeout limits how long it takes to connect to the service.
const DialTimeout = 5 * time.Second

// NewTransport returns a transport for calls to one instance: HTTP/1.1 connections that
// are kept alive, at most idle of them while they are not used.
func NewTransport(idle int) *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: DialTimeout, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
		MaxIdleConns:          0, // there is one host, and MaxIdleConnsPerHost limits it
		MaxIdleConnsPerHost:   idle,
		IdleConnTimeout:       90 * time.Second,
	}
}
