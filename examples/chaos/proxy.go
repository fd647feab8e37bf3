package chaos

import (
	"fmt"
	"io"
	"maps"
	"net"
	"sync"
)

// Mood is what a Proxy does.
type Mood string

// The moods. Turning to Open and Refuse cuts all connections, so nothing that
// was held back in Hang, or whose answer was lost, goes on.
const (
	Open   Mood = "open"
	Refuse Mood = "refuse" // nobody listens
	Hang   Mood = "hang"   // connections stay or are accepted, and nothing passes
	Lose   Mood = "lose"   // requests pass, answers do not
)

// Proxy passes TCP connections on to a server, as its mood is. Its address stays
// the same, also while it refuses.
type Proxy struct {
	server, addr string
	passing      sync.WaitGroup // accept and copy

	mu       sync.Mutex // guards the following
	mood     Mood
	changed  chan struct{} // closed when mood changes
	listener net.Listener  // nil while it refuses
	conns    map[net.Conn]bool
	lost     chan struct{} // closed when an answer was lost for the first time
	cut      int           // connections
	held     map[Mood]int  // what was read in Hang and Lose, in pieces
}

// NewProxy starts a proxy on a free port of this machine. Close ends it.
func NewProxy(server string) (*Proxy, error) {
	p := &Proxy{
		server: server, addr: "127.0.0.1:0", mood: Refuse, changed: make(chan struct{}),
		conns: make(map[net.Conn]bool), lost: make(chan struct{}), held: make(map[Mood]int),
	}
	if err := p.Turn(Open); err != nil {
		return nil, err
	}
	p.addr = p.listener.Addr().String() // for good
	return p, nil
}

// Addr returns the address at which clients reach the server.
func (p *Proxy) Addr() string { return p.addr }

// Dial implements proxy.Dialer of golang.org/x/net, for clients that learn the
// server's address from the server: whatever the address, it dials the proxy.
func (p *Proxy) Dial(network, _ string) (net.Conn, error) { return net.Dial(network, p.addr) }

// Turn changes the mood. Turn(Open) while it is open only cuts all connections.
func (p *Proxy) Turn(to Mood) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mood = to
	close(p.changed)
	p.changed = make(chan struct{})
	if to == Open || to == Refuse {
		p.cut += len(p.conns)
		for c := range p.conns {
			reset(c)
		}
		clear(p.conns)
	}
	switch {
	case to == Refuse && p.listener != nil:
		err := p.listener.Close()
		p.listener = nil
		return err
	case to != Refuse && p.listener == nil:
		l, err := net.Listen("tcp", p.addr)
		if err != nil {
			return fmt.Errorf("listen for the proxy: %w", err)
		}
		p.listener = l
		p.passing.Go(func() { p.accept(l) }) // ends with the listener
	}
	return nil
}

// Close ends the proxy and waits for all that it started.
func (p *Proxy) Close() error {
	err := p.Turn(Refuse)
	p.passing.Wait()
	return err
}

func (p *Proxy) accept(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil { // it is closed
			return
		}
		server, err := net.Dial("tcp", p.server)
		if err != nil {
			reset(client)
			continue
		}
		p.pass(client, server)
	}
}

// pass connects a client and the server.
func (p *Proxy) pass(client, server net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mood == Refuse { // since it was accepted
		reset(client)
		server.Close()
		return
	}
	p.conns[client], p.conns[server] = true, true
	p.passing.Go(func() { p.copy(server, client, false) }) // each ends when one of its connections does
	p.passing.Go(func() { p.copy(client, server, true) })
}

// copy passes on what comes from one side until a side ends, and then ends both.
func (p *Proxy) copy(to, from net.Conn, answers bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && p.passes(answers) {
			_, err = to.Write(buf[:n])
		}
		if err != nil {
			break
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range []io.Closer{from, to} {
		c.Close()
	}
	delete(p.conns, from)
	delete(p.conns, to)
}

// passes reports whether what was read is passed on. In Hang it waits for the next mood.
func (p *Proxy) passes(answer bool) bool {
	p.mu.Lock()
	mood, changed := p.mood, p.changed
	if mood == Hang || mood == Lose && answer {
		p.held[mood]++
		if mood == Lose && p.held[mood] == 1 {
			close(p.lost)
		}
	}
	p.mu.Unlock()
	if mood == Hang {
		<-changed // which cuts the connection
		return false
	}
	return mood != Lose || !answer
}

// reset breaks a connection.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // it is closed all the same
	}
	c.Close()
}

// idle reports whether the proxy cut no connection, or lost no answer.
func (p *Proxy) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cut == 0 || p.held[Lose] == 0
}

// String says what the proxy did.
func (p *Proxy) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprintf("%d connections were cut, pieces held back: %v", p.cut, maps.Clone(p.held))
}
