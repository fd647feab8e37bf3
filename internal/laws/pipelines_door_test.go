package laws

import (
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// behaviour is what a door does with requests.
type behaviour string

const (
	open    behaviour = "open"
	slow    behaviour = "slow"    // it takes a while
	busy    behaviour = "busy"    // it answers 503 at once
	hanging behaviour = "hanging" // it neither answers nor does anything
	losing  behaviour = "losing"  // it handles the request, and breaks the connection instead of answering
	refused behaviour = "refused" // it does not listen
)

const (
	// singleFaults is how many of 1000 requests fail separately. A row fails so
	// at most once at each door, so that it never looks like a bad one.
	singleFaults = 15
	// slowest is the longest duration of a request in a slow period.
	slowest = 120 * time.Millisecond
)

// door is one of the sink's servers.
type door struct {
	sink     *recordingSink
	name     string
	addr     string
	handlers sync.WaitGroup

	mu        sync.Mutex // guards the following
	behaviour behaviour
	changed   chan struct{} // closed when behaviour changes
	server    *http.Server  // nil while it does not listen
	served    chan struct{} // closed when server has ended
}

// turn changes a door's behaviour.
func (d *door) turn(to behaviour) error {
	d.mu.Lock()
	was := d.behaviour
	d.behaviour = to
	close(d.changed)
	d.changed = make(chan struct{})
	d.mu.Unlock()
	switch {
	case to == refused && was != refused:
		return d.shut()
	case to != refused && was == refused:
		return d.listen()
	}
	return nil
}

func (d *door) listen() error {
	l, err := net.Listen("tcp", d.addr)
	if err != nil {
		return err
	}
	server, served := &http.Server{Handler: d}, make(chan struct{})
	d.mu.Lock()
	d.server, d.served = server, served
	d.mu.Unlock()
	go func() { // ends with shut, which waits for it
		defer close(served)
		_ = server.Serve(l) // the error says that it was closed
	}()
	return nil
}

// shut ends the server, its connections and its requests.
func (d *door) shut() error {
	d.mu.Lock()
	server, served := d.server, d.served
	d.mu.Unlock()
	err := server.Close()
	<-served
	d.handlers.Wait()
	return err
}

// ServeHTTP implements http.Handler.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !d.enter() {
		reset(w)
		return
	}
	defer d.handlers.Done()
	body, err := io.ReadAll(r.Body) // all of it, since only then does the context end with the connection
	if err != nil {
		return
	}
	d.mu.Lock()
	behaviour, changed := d.behaviour, d.changed
	d.mu.Unlock()
	switch behaviour {
	case hanging:
		select {
		case <-r.Context().Done():
		case <-changed:
		}
		reset(w)
		return
	case refused: // the behaviour has changed since this request arrived
		reset(w)
		return
	case busy:
		http.Error(w, "busy", http.StatusServiceUnavailable)
		return
	case slow:
		timer := time.NewTimer(d.sink.pause())
		defer timer.Stop()
		select {
		case <-r.Context().Done():
			return
		case <-timer.C:
		}
	}
	status, answer, lost := d.sink.take(r, d.name, body)
	if lost || behaviour == losing {
		reset(w)
		return
	}
	w.WriteHeader(status)
	w.Write(answer) // the worker may have disconnected
}

// enter counts a request, so that shut waits for it. It returns false if the
// door is being shut.
func (d *door) enter() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.behaviour == refused {
		return false
	}
	d.handlers.Add(1)
	return true
}

// reset breaks the connection.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // the server closes the connection
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // on an error it is still closed
	}
	conn.Close()
}
