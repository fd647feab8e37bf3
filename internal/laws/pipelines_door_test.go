package laws

import (
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// mood is what a door does with requests.
type mood string

const (
	open    mood = "open"
	slow    mood = "slow"    // it takes a while
	busy    mood = "busy"    // 503 at once
	hanging mood = "hanging" // no answer, and nothing is done
	losing  mood = "losing"  // it is done, and the connection breaks instead of an answer
	refused mood = "refused" // nobody listens
)

const (
	// singleFaults of 1000 requests meet a fault of their own. A row meets one at most
	// at each door, so that it never looks like a bad one.
	singleFaults = 15
	// slowest is how long a request takes at most in a slow spell.
	slowest = 120 * time.Millisecond
)

// door is one server of the sink.
type door struct {
	sink     *recordingSink
	name     string
	addr     string
	handlers sync.WaitGroup

	mu      sync.Mutex // guards the following
	mood    mood
	changed chan struct{} // closed when mood changes
	server  *http.Server  // nil while nobody listens
	served  chan struct{} // closed when server has ended
}

// turn changes the mood of a door.
func (d *door) turn(to mood) error {
	d.mu.Lock()
	was := d.mood
	d.mood = to
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
	body, err := io.ReadAll(r.Body) // all of it: only then does the context end with the connection
	if err != nil {
		return
	}
	d.mu.Lock()
	mood, changed := d.mood, d.changed
	d.mu.Unlock()
	switch mood {
	case hanging:
		select {
		case <-r.Context().Done():
		case <-changed:
		}
		reset(w)
		return
	case refused: // since this request came
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
	if lost || mood == losing {
		reset(w)
		return
	}
	w.WriteHeader(status)
	w.Write(answer) // a worker that is gone is no matter
}

// enter counts a request, so that shut waits for it. It is false once the door is to be shut.
func (d *door) enter() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mood == refused {
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
		_ = tcp.SetLinger(0) // it is closed all the same
	}
	conn.Close()
}
