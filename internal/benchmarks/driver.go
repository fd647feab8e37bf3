package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"time"
)

type options struct {
	only, consumers string
	channels        string
	runs            int
	warmup, measure time.Duration
	out, profile    string
}

// beConsumer is the main function of a consumer process.
func beConsumer(ctx context.Context, name, endpoint string, o *options, latencies bool) error {
	c, err := consumerNamed(name)
	if err != nil {
		return err
	}
	if o.profile != "" {
		f, err := os.Create(o.profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	m := &meter{latencies: latencies}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- c.run(ctx, endpoint, m) }() // ends with ctx
	measured := make(chan error, 1)
	var r result
	go func() { // ends by itself, or with ctx
		var err error
		r, err = m.measure(ctx, o.warmup, o.measure)
		measured <- err
	}()
	select {
	case err := <-ended:
		return fmt.Errorf("consumer %s ended early: %w", name, errors.Join(err, errors.New("it should run until it is stopped")))
	case err := <-measured:
		if err != nil {
			return err
		}
	}
	if err := r.print(); err != nil {
		return err
	}
	cancel()
	return <-ended
}

// run runs one consumer on one load.
func run(ctx context.Context, c consumer, l load, p *pages, o options, latencies bool) (result, error) {
	s, err := serve(l, p)
	if err != nil {
		return result{}, err
	}
	defer s.close()
	self, err := os.Executable()
	if err != nil {
		return result{}, err
	}
	args := []string{"-consume", c.name, "-warmup", o.warmup.String(), "-measure", o.measure.String()}
	if latencies {
		args = append(args, "-latencies")
	}
	if l.InFlight > 0 {
		args = append(args, "-held", strconv.Itoa(l.InFlight))
	}
	if o.profile != "" {
		name := fmt.Sprintf("%s-%dch-%d.pprof", c.name, l.Channels, time.Now().UnixMilli())
		args = append(args, "-profile", filepath.Join(o.profile, name))
	}
	ctx, cancel := context.WithTimeout(ctx, o.warmup+o.measure+time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), consumeVariable+"="+s.endpoint(), channelsVariable+"="+strconv.Itoa(l.Channels))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	r, err := s.follow(cmd)
	if err != nil {
		return result{}, fmt.Errorf("%s on %+v: %w: %s", c.name, l, err, stderr.Bytes())
	}
	return r, nil
}

// follow runs a consumer process. It prints a line when it starts to measure,
// and the result.
func (s *server) follow(cmd *exec.Cmd) (r result, err error) {
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return r, err
	}
	if err := cmd.Start(); err != nil {
		return r, err
	}
	out := bufio.NewReader(stdout)
	_, begun := out.ReadBytes('\n')
	reads := s.reads.Load()
	line, measured := out.ReadBytes('\n')
	reads = s.reads.Load() - reads
	if err := errors.Join(cmd.Wait(), begun, measured); err != nil {
		return r, err
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return r, err
	}
	r.Reads, r.Connections = reads, s.connections.Load()
	return r, nil
}

// drive runs all cases.
func drive(ctx context.Context, o options) error {
	for _, dir := range []string{o.out, o.profile} {
		if dir != "" {
			if err := os.MkdirAll(dir, 0o777); err != nil {
				return err
			}
		}
	}
	ran := false
	for _, g := range groups {
		if !strings.HasPrefix(g.name, o.only) {
			continue
		}
		ran = true
		if err := g.run(ctx, o); err != nil {
			return err
		}
	}
	if strings.HasPrefix(handover, o.only) {
		ran = true
		if err := runHandover(ctx); err != nil {
			return err
		}
	}
	if !ran {
		return fmt.Errorf("no group's name begins with %q; the groups are %s", o.only, groupNames())
	}
	return nil
}

// wants reports whether the options select a load.
func (o options) wants(l load) bool {
	return o.channels == "" || slices.Contains(strings.Split(o.channels, ","), strconv.Itoa(l.Channels))
}

// chosen returns the consumers of a group that the options select.
func (o options) chosen(names []string) []consumer {
	var list []consumer
	for _, c := range consumers {
		if slices.Contains(names, c.name) && (o.consumers == "" || slices.Contains(strings.Split(o.consumers, ","), c.name)) {
			list = append(list, c)
		}
	}
	return list
}
