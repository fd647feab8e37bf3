package otscontainer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/testcontainers/testcontainers-go"

	"github.com/watermill-ots/watermill-ots/emulator"
)

// Place is where an emulator runs.
type Place int

// The places. Anywhere means a container if an engine answers, else this
// process.
const (
	Anywhere Place = iota
	InContainer
	InProcess
)

// Config configures the emulator. The zero Config is an emulator in memory that
// accepts any instance name and any credentials.
type Config struct {
	// Place is where the emulator runs. With InContainer, Start fails if no
	// container engine answers.
	Place Place

	// Image is the container's image, for example one built from
	// cmd/ots-emulator/Containerfile. Empty: the image is built from a static
	// binary, for which the go command must be in PATH.
	Image string

	// Instance, AccessKeyID and AccessKeySecret are as in emulator.Options.
	Instance, AccessKeyID, AccessKeySecret string

	// Seed is the content of a seed file, see emulator.LoadSeed. Nil: no tables.
	Seed []byte
}

// ErrNoEngine is returned by Start with InContainer if no container engine
// answers. The error also wraps the cause.
var ErrNoEngine = errors.New("no container engine answers")

// Emulator is a running emulator. Its methods are safe for concurrent use.
type Emulator struct {
	endpoint, admin, token string
	container              testcontainers.Container // nil in this process
	stop                   func() error
}

// Start starts an emulator and returns once it answers and has the tables of
// the seed file. Close stops it; when ctx ends, only the start is cancelled.
func Start(ctx context.Context, cfg Config) (*Emulator, error) {
	e := &Emulator{token: rand.Text()}
	engine := errors.New("not requested")
	if cfg.Place != InProcess {
		engine = probe(ctx)
	}
	var err error
	switch {
	case engine == nil:
		err = e.startContainer(ctx, cfg)
	case cfg.Place == InContainer:
		err = fmt.Errorf("%w: %w", ErrNoEngine, engine)
	default:
		err = e.startHere(cfg)
	}
	if err != nil {
		return nil, fmt.Errorf("starting an emulator: %w", err)
	}
	return e, nil
}

// Endpoint returns the URL for clients.
func (e *Emulator) Endpoint() string { return e.endpoint }

// AdminEndpoint returns the URL of the admin API. Its requests must carry
// "Authorization: Bearer " and AdminToken.
func (e *Emulator) AdminEndpoint() string { return e.admin }

// AdminToken returns the token of the admin API, random for each emulator.
func (e *Emulator) AdminToken() string { return e.token }

// Container returns the container, or nil if the emulator runs in this process.
func (e *Emulator) Container() testcontainers.Container { return e.container }

// Close stops the emulator and discards its data. Call it once.
func (e *Emulator) Close() error { return e.stop() }

// startHere starts the emulator in this process.
func (e *Emulator) startHere(cfg Config) error {
	em, err := emulator.Start(emulator.Options{
		Instance: cfg.Instance, AccessKeyID: cfg.AccessKeyID, AccessKeySecret: cfg.AccessKeySecret, AdminToken: e.token,
	})
	if err != nil {
		return err
	}
	if cfg.Seed != nil {
		if err := em.LoadSeed("seed", cfg.Seed); err != nil {
			return errors.Join(err, em.Close())
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return errors.Join(fmt.Errorf("listening for the admin API: %w", err), em.Close())
	}
	server := &http.Server{Handler: em.AdminHandler(), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }() // stop waits for its end
	e.endpoint, e.admin = em.Endpoint(), "http://"+listener.Addr().String()
	e.stop = func() error {
		err := server.Close()
		if ended := <-served; !errors.Is(ended, http.ErrServerClosed) {
			err = errors.Join(err, ended)
		}
		return errors.Join(err, em.Close())
	}
	return nil
}
