package laws

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"go.uber.org/goleak"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/router"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// The test binary is also the process that runs pipelines, if envWorker holds
// its configuration.
const envWorker = "LAWS_WORKER"

// pipelineWorker is a process that runs the pipelines of a configuration file
// as a program would, and sends what it handles to the test's sink.
type pipelineWorker struct {
	Number   int
	Config   string            // the YAML file
	Doors    map[string]string // the sink's URLs by door
	OneByOne bool              // the publisher sends each message separately, as most do
	client   *http.Client
	requests *atomic.Int64 // number of requests sent so far
}

const (
	// sinkTimeout is how long a worker waits for the sink. It is far above the
	// delay of a slow period, and below the time for the drain.
	sinkTimeout = 700 * time.Millisecond
	// workerHeap bounds a worker's memory (law L6): three pipelines, each with
	// a window of 300 records and a page per channel, which may have 5000. On a
	// machine that was too busy to collect garbage in time it was 297 MiB.
	workerHeap = 384 << 20
	// workerPublisher is the publisher's name in the file.
	workerPublisher = "sink"
)

// exitUnsettled is the exit code of a worker whose drain left messages
// unsettled or acked ones uncommitted. That is allowed only if it lost a
// channel meanwhile.
const exitUnsettled = 4

// main is the main function of the process: it runs the pipelines until
// SIGTERM.
func (w pipelineWorker) main() int {
	err := w.run()
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "worker:", err)
	var start *startError
	switch {
	case errors.As(err, &start):
		return exitNoService
	case errors.Is(err, subscriber.ErrDrainTimeout), errors.Is(err, subscriber.ErrNotCommitted):
		return exitUnsettled
	}
	return 1
}

// startError says that the pipelines did not start, possibly because of faults
// of the service; a supervisor would start another process.
type startError struct{ error }

func (e *startError) Unwrap() error { return e.error }

func (w pipelineWorker) run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	fmt.Print(consuming)
	w.requests = new(atomic.Int64)
	w.client = &http.Client{Timeout: sinkTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	r, err := w.router()
	if err != nil {
		return err
	}
	if err = r.Run(ctx); err != nil {
		select {
		case <-r.Running():
		default:
			err = &startError{err}
		}
	}
	w.client.CloseIdleConnections()
	stop()
	signal.Reset()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	if mem.HeapSys > workerHeap {
		err = errors.Join(err, fmt.Errorf("L6: the heap grew to %d MiB", mem.HeapSys>>20))
	}
	return errors.Join(err, goleak.Find(goleak.IgnoreTopFunction("os/signal.loop"), goleak.IgnoreTopFunction("os/signal.signal_recv")))
}

// router builds the pipelines from the file, as a program would.
func (w pipelineWorker) router() (*router.Router, error) {
	cfg, err := router.Load(w.Config)
	if err != nil {
		return nil, err
	}
	r, err := router.New(cfg, watermill.NewStdLogger(os.Getenv("LAWS_DEBUG") != "", false))
	if err != nil {
		return nil, err
	}
	if err := r.RegisterPublisher(workerPublisher, w); err != nil {
		return nil, err
	}
	save := func(ctx context.Context, b *batching.Batch) error { return w.save(ctx, b) }
	return r, errors.Join(
		r.Handle(batchedPipe.name, router.Handlers{
			Process: func(msg *message.Message) error {
				if err := prepare(msg); err != nil {
					return err
				}
				return choose(msg)
			},
			Batches:     map[string]func(context.Context, *batching.Batch) error{batcherNames[0]: save, batcherNames[1]: save},
			Middlewares: []message.HandlerMiddleware{w.watch, w.behind},
		}),
		r.Handle(plainPipe.name, router.Handlers{Process: prepare, Middlewares: []message.HandlerMiddleware{w.watch}}),
		r.Handle(forwardPipe.name, router.Handlers{Process: prepare, Middlewares: []message.HandlerMiddleware{w.watch}}),
	)
}

// save is the batch handler: it sends one request for the batch, which fails as
// a whole unless the sink names the rows that it refuses.
func (w pipelineWorker) save(ctx context.Context, b *batching.Batch) error {
	refused, err := w.send(ctx, batchedPipe.name, b.Messages...)
	for _, msg := range b.Messages {
		if slices.Contains(refused, msg.UUID) {
			b.Fail(msg, errBad)
		}
	}
	return err
}

// Publish implements message.Publisher: it publishes to the door named by the
// topic.
func (w pipelineWorker) Publish(topic string, msgs ...*message.Message) error {
	if topic == lettersDoor {
		for _, msg := range msgs {
			if _, err := w.post(msg.Context(), topic, msg.Payload); err != nil {
				return err
			}
		}
		return nil
	}
	if !w.OneByOne {
		_, err := w.send(msgs[0].Context(), topic, msgs...)
		return err
	}
	for _, msg := range msgs {
		if _, err := w.send(msg.Context(), topic, msg); err != nil {
			return err
		}
	}
	return nil
}

// Close implements message.Publisher.
func (pipelineWorker) Close() error { return nil }

// send sends the rows of messages to a door. It returns the UUIDs of those that
// the door refused while it accepted the others.
func (w pipelineWorker) send(ctx context.Context, door string, msgs ...*message.Message) (refused []string, err error) {
	req := request{Process: w.Number, Rows: make([]row, len(msgs))}
	for i, msg := range msgs {
		if req.Rows[i], err = rowOf(msg); err != nil {
			return nil, err
		}
	}
	body, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	answer, err := w.post(ctx, door, body)
	if err == nil && len(answer) > 0 {
		err = json.Unmarshal(answer, &refused)
	}
	return refused, err
}

// post sends a body to a door. If it gets no response, it abandons the request
// before it returns: otherwise the sink could execute the request later, at the
// same time as the next attempt, which this library cannot prevent.
func (w pipelineWorker) post(ctx context.Context, door string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.Doors[door], bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	id := fmt.Sprintf("%d-%d", w.Number, w.requests.Add(1))
	req.Header.Set(requestHeader, id)
	resp, err := w.client.Do(req)
	if err != nil {
		return nil, errors.Join(err, w.abandon(ctx, id))
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New("the sink answers " + strconv.Itoa(resp.StatusCode) + " " + string(answer))
	}
	return answer, err
}

// abandon tells the sink not to execute the request if it has not done so yet. On
// an error it is unknown whether the sink has received this.
func (w pipelineWorker) abandon(ctx context.Context, id string) error {
	req, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodPost, w.Doors[abandonedDoor], strings.NewReader(id))
	if err != nil {
		return err
	}
	client := &http.Client{Transport: w.client.Transport} // without a timeout: the process must not continue before
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// behind is a middleware around the batches: it sends each message on when its
// batch is done, one at a time, as message.Router publishes what a handler
// returns.
func (w pipelineWorker) behind(next message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		produced, err := next(msg)
		if err != nil || msg.Context().Err() != nil { // a message that was called back is not done
			return produced, err
		}
		if _, err := w.send(msg.Context(), behindDoor, msg); err != nil {
			return nil, fmt.Errorf("behind the batch: %w", err)
		}
		return produced, nil
	}
}

// watch is the outermost middleware: it reports to the test which messages lost
// their channel while they were handled.
func (w pipelineWorker) watch(next message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		ctx, from := msg.Context(), time.Now()
		produced, err := next(msg)
		if errors.Is(context.Cause(ctx), subscriber.ErrChannelLost) {
			body, jsonErr := json.Marshal(fencing{Process: w.Number, UUID: msg.UUID, From: from, To: time.Now()})
			_, postErr := w.post(context.WithoutCancel(ctx), fencedDoor, body)
			err = errors.Join(err, jsonErr, postErr)
		}
		return produced, err
	}
}
