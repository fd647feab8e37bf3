package otscontainer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/wait"
)

const (
	servicePort = "8087/tcp"
	adminPort   = "8089/tcp"
	seedPath    = "/seed.yaml"

	// startTimeout bounds the start of a container whose image exists.
	startTimeout = time.Minute

	// stopTimeout bounds Close: if the context has ended, the container must
	// still be removed.
	stopTimeout = 30 * time.Second

	// containerfile is cmd/ots-emulator/Containerfile without its volume, since
	// tests keep nothing.
	containerfile = "FROM scratch\nCOPY ots-emulator /ots-emulator\nUSER 65532:65532\nEXPOSE 8087 8089\nENTRYPOINT [\"/ots-emulator\"]\n"
)

// probe returns why no container engine answers. The library panics if it finds
// none.
func probe(ctx context.Context) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("looking for a container engine: %v", r)
		}
	}()
	provider, err := testcontainers.ProviderDocker.GetProvider()
	if err != nil {
		return err
	}
	return errors.Join(provider.Health(ctx), provider.Close())
}

// request describes the container.
func request(cfg Config, token string) testcontainers.ContainerRequest {
	req := testcontainers.ContainerRequest{
		Image:        cfg.Image,
		ExposedPorts: []string{servicePort, adminPort},
		Cmd:          []string{"--addr", "0.0.0.0:8087", "--admin-addr", "0.0.0.0:8089", "--admin-token", token},
		WaitingFor:   wait.ForLog("listening on ").WithStartupTimeout(startTimeout),
	}
	for flag, value := range map[string]string{"--instance": cfg.Instance, "--access-key-id": cfg.AccessKeyID, "--access-key-secret": cfg.AccessKeySecret} {
		if value != "" {
			req.Cmd = append(req.Cmd, flag, value)
		}
	}
	if cfg.Seed != nil {
		req.Cmd = append(req.Cmd, "--seed", seedPath)
		req.Files = []testcontainers.ContainerFile{{Reader: bytes.NewReader(cfg.Seed), ContainerFilePath: seedPath, FileMode: 0o444}}
	}
	return req
}

// startContainer starts the emulator in a container.
func (e *Emulator) startContainer(ctx context.Context, cfg Config) error {
	req := request(cfg, e.token)
	if cfg.Image == "" {
		archive, err := imageContext(ctx)
		if err != nil {
			return err
		}
		req.FromDockerfile = testcontainers.FromDockerfile{ContextArchive: archive, Dockerfile: "Containerfile"}
	}
	c, err := testcontainers.GenericContainer(ctx, testcontainers.GenericContainerRequest{ContainerRequest: req, Started: true})
	stop := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		return testcontainers.TerminateContainer(c, testcontainers.StopContext(ctx))
	}
	if err == nil {
		e.endpoint, err = c.PortEndpoint(ctx, servicePort, "http")
	}
	if err == nil {
		e.admin, err = c.PortEndpoint(ctx, adminPort, "http")
	}
	if err != nil {
		return errors.Join(fmt.Errorf("in a container: %w", err), stop())
	}
	e.container, e.stop = c, stop
	return nil
}

// imageContext builds the static binary and packs it with its Containerfile.
func imageContext(ctx context.Context) (io.ReadSeeker, error) {
	dir, err := os.MkdirTemp("", "otscontainer")
	if err != nil {
		return nil, fmt.Errorf("building the image: %w", err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "ots-emulator")
	build := exec.CommandContext(ctx, "go", "build", "-ldflags=-s -w", "-o", path, "github.com/watermill-ots/watermill-ots/cmd/ots-emulator")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+runtime.GOARCH)
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the image's binary, for which the go command is needed (or set Config.Image): %w\n%s", err, out)
	}
	binary, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("building the image: %w", err)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, file := range []struct {
		name    string
		mode    int64
		content []byte
	}{{"Containerfile", 0o644, []byte(containerfile)}, {"ots-emulator", 0o755, binary}} {
		err = errors.Join(err, w.WriteHeader(&tar.Header{Name: file.name, Mode: file.mode, Size: int64(len(file.content))}))
		_, writing := w.Write(file.content)
		err = errors.Join(err, writing)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, fmt.Errorf("packing the image: %w", err)
	}
	return bytes.NewReader(archive.Bytes()), nil
}
