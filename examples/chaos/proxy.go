package chaos

import (
	"fmt"
	"io"
	"maps"
	"net"
	"sync"
)

// Mode is what a Proxy does with connections.
type Mode string

// The modes. Switching to Open or Refuse cuts all connections, so nothing that
// was held back in Hang, or whose response was lost, continues.
const (
	Open   Mode = "open"
	Refuse Mode = "refuse" // it does not listen
	Hang   Mode = "hang"   // connections are kept or accepted, and nothing passes
	Lose   Mode = "lose"   // requests pass, responses do not
)

// Proxy forwards TCP connections to a server, according to its mode. Its
// address stays the same, even while it refuses.
type Proxy struct {
	server, addr string
	passing      sync.WaitGroup // goroutines of accept and copy

	mu       sync.Mutex // guards the following
	mode     Mode
	changed  chan struct{} // closed when mode changes
	listener net.Listener  // nil while it refuses
	conns    map[net.Conn]bool
	lost     chan struct{} // closed when a response was lost for the first time
	cut      int           // number of connections that were cut
	held     map[Mode]int  // number of pieces that were held back, by mode
}

// NewProxy starts a proxy on a free port of this machine, which ends with
// Close.
func NewProxy(server string) (*Proxy, error) {
	p := &Proxy{
		server: server, addr: "127.0.0.1:0", mode: Refuse, changed: make(chan struct{}),
		conns: make(map[net.Conn]bool), lost: make(chan struct{}), held: make(map[Mode]int),
	}
	if err := p.Turn(Open); err != nil {
		return nil, err
	}
	p.addr = p.listener.Addr().String() // never changes
	return p, nil
}

// Addr returns the address at which clients reach the server.
func (p *Proxy) Addr() string { return p.addr }

// Dial implements proxy.Dialer of golang.org/x/net, for clients that learn the
// server's address from the server: it dials the proxy, whatever the address.
func (p *Proxy) Dial(network, _ string) (net.Conn, error) { return net.Dial(network, p.addr) }

// Turn changes the mode. Turn(Open) while it is open only cuts all connections.
func (p *Proxy) Turn(to Mode) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mode = to
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

// Close ends the proxy and waits for its goroutines.
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
	if p.mode == Refuse { // the mode has changed since the connection was accepted
		reset(client)
		server.Close()
		return
	}
	p.conns[client], p.conns[server] = true, true
	p.passing.Go(func() { p.copy(server, client, false) }) // each ends when one of its connections does
	p.passing.Go(func() { p.copy(client, server, true) })
}

// copy forwards what it reads from one side until a side ends, and then closes
// both.
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

// passes reports whether to forward what was read. In Hang it waits for the
// next mode.
func (p *Proxy) passes(answer bool) bool {
	p.mu.Lock()
	mode, changed := p.mode, p.changed
	if mode == Hang || mode == Lose && answer {
		p.held[mode]++
		if mode == Lose && p.held[mode] == 1 {
			close(p.lost)
		}
	}
	p.mu.Unlock()
	if mode == Hang {
		<-changed // the change of the mode cuts the connection
		return false
	}
	return mode != Lose || !answer
}

// reset breaks a connection.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // on an error it is still closed
	}
	c.Close()
}

// idle reports whether the proxy has cut no connection, or lost no response.
func (p *Proxy) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cut == 0 || p.held[Lose] == 0
}

// String describes what the proxy did.
func (p *Proxy) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprintf("%d connections were cut, pieces held back: %v", p.cut, maps.Clone(p.held))
}
