package emulator

import (
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

const (
	tunnelPrefix = "tunnel/"

	// maxBody bounds request bodies, also after decompression. The service's
	// largest request, a BatchWriteRow, may have 4 MiB.
	maxBody = 8 << 20

	// keepBuffer is the size of the largest buffer that is returned to the
	// pool.
	keepBuffer = 4 << 20
)

// buffers is a pool of memory for bodies. A page of records is about a
// megabyte, and allocating one for each read would be expensive.
var buffers = sync.Pool{New: func() any { return new(buffer) }}

type buffer struct{ request, response []byte }

func (b *buffer) release() {
	if cap(b.request) <= keepBuffer && cap(b.response) <= keepBuffer {
		b.request, b.response = b.request[:0], b.response[:0]
		buffers.Put(b)
	}
}

// exchange is one request and its response.
type exchange struct {
	op   string // operation: "PutRow", "tunnel/readrecords"
	path string // as signed by the client
	req  *http.Request
	w    http.ResponseWriter
	*buffer
}

// serve answers one HTTP request.
func (e *Emulator) serve(w http.ResponseWriter, r *http.Request) {
	buf := buffers.Get().(*buffer)
	defer buf.release()
	// If the endpoint has a trailing slash, the Go SDK requests a path with two
	// slashes and signs it with one.
	op := strings.TrimLeft(r.URL.Path, "/")
	x := &exchange{op: op, path: "/" + op, req: r, w: w, buffer: buf}
	count := e.counters.of(op)
	count.requests.Add(1)
	// The HTTP server notices that a client has hung up only once the whole
	// body is read, so the body is read before anything waits.
	unread := x.read()
	var fault Fault
	faulty := false
	if unread == nil {
		if !e.gate.wait(r.Context(), e.closing) {
			x.reset()
			return
		}
		if fault, faulty = e.faults.draw(op); faulty {
			e.counters.faults.Add(1)
			if !e.faultBefore(x, &fault) {
				return
			}
		}
	}
	status, failed := e.answer(x, &fault, unread)
	if failed {
		count.errors.Add(1)
	}
	count.received.Add(int64(len(buf.request)))
	count.sent.Add(int64(len(buf.response)))
	if faulty {
		e.faultAfter(x, &fault, status)
		return
	}
	x.send(status)
}

// answer leaves the response in x; an error has the service's form. unread says
// why the body could not be read.
func (e *Emulator) answer(x *exchange, fault *Fault, unread error) (status int, failed bool) {
	header := x.w.Header()
	header.Set("x-ots-requestid", e.requestID())
	header.Set("x-ots-date", e.now().UTC().Format("2006-01-02T15:04:05.000Z"))
	status = http.StatusOK
	err := e.handle(x, fault, unread)
	if err != nil {
		failed = true
		var we *wire.Error
		if !errors.As(err, &we) {
			we = wire.Errorf(wire.CodeInternalServerError, "%v", err)
		}
		status = we.Status
		x.response = appendError(x.response[:0], we)
		if status >= http.StatusInternalServerError {
			e.log.Warn("answering with an error", "operation", x.op, "error", we)
		}
	}
	deflated, err := x.deflate()
	if err != nil {
		e.log.Error("compressing a response", "error", err)
	}
	e.keys.SignResponse(header, x.path, x.response, !x.ignoresDigest())
	if deflated != nil {
		x.response = append(x.response[:0], deflated...)
	}
	return status, failed
}

// ignoresDigest reports whether the request is a read of records by the Go
// SDK's tunnel client. That client checks no digest, and hashing a page takes
// longer than reading it; every other client gets one.
func (x *exchange) ignoresDigest() bool {
	return x.op == "tunnel/readrecords" && strings.HasPrefix(x.req.UserAgent(), "tablestore-tunnel-sdk-go/")
}

// requestID returns an id that is unique among all responses.
func (e *Emulator) requestID() string {
	return e.id + "-" + strconv.FormatInt(e.lastRequest.Add(1), 16)
}

// handle verifies and dispatches a request.
func (e *Emulator) handle(x *exchange, fault *Fault, unread error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			e.log.Error("panic in a request", "operation", x.op, "panic", r, "stack", string(debug.Stack()))
			err = wire.Errorf(wire.CodeInternalServerError, "internal error")
		}
	}()
	if x.req.Method != http.MethodPost {
		return wire.Errorf(wire.CodeMethodNotAllowed, "The method %.16s is not allowed; use POST.", x.req.Method)
	}
	if unread != nil {
		return unread
	}
	if err := e.keys.Verify(x.req.Header, x.path, x.request, e.now()); err != nil {
		return err
	}
	if err := x.decompress(); err != nil {
		return err
	}
	if fault.Code != "" {
		return &wire.Error{Status: fault.httpStatus(), Code: fault.Code, Message: fault.Message}
	}
	if fault.Duplicate {
		if x.response, err = e.dispatch(x); err != nil {
			e.log.Debug("the first delivery of a duplicated request failed", "operation", x.op, "error", err)
		}
		x.response = x.response[:0]
	}
	x.response, err = e.dispatch(x)
	return err
}

func (e *Emulator) dispatch(x *exchange) ([]byte, error) {
	if op, ok := strings.CutPrefix(x.op, tunnelPrefix); ok {
		return e.tunnels.Handle(op, x.request, x.response)
	}
	return e.tables.Handle(x.op, x.request, x.response)
}

// read reads the whole body.
func (x *exchange) read() error {
	if x.req.ContentLength > maxBody {
		return errTooLarge()
	}
	if n := int(x.req.ContentLength); n > cap(x.request) {
		x.request = make([]byte, 0, n)
	}
	var err error
	x.request, err = appendAll(x.request, x.req.Body)
	return err
}

// appendAll appends what r has, up to maxBody bytes.
func appendAll(dst []byte, r io.Reader) ([]byte, error) {
	for {
		if len(dst) == cap(dst) {
			dst = append(dst, 0)[:len(dst)]
		}
		n, err := r.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		switch {
		case len(dst) > maxBody:
			return dst, errTooLarge()
		case err == io.EOF:
			return dst, nil
		case err != nil:
			return dst, wire.Errorf(wire.CodeRequestTimeout, "reading the request body: %v", err)
		}
	}
}

func errTooLarge() error {
	return wire.Errorf(wire.CodeRequestBodyTooLarge, "The request body is larger than %d bytes.", maxBody)
}

// decompress undoes the compression that the Java SDK uses if configured.
func (x *exchange) decompress() error {
	switch kind := x.req.Header.Get("x-ots-request-compress-type"); kind {
	case "", "none":
		return nil
	case "deflate":
	default:
		return wire.Invalid("Unsupported request compress type: %.32s.", kind)
	}
	z, err := zlib.NewReader(bytes.NewReader(x.request))
	if err != nil {
		return wire.Invalid("The request body is not deflated: %v.", err)
	}
	plain, err := appendAll(nil, z)
	if err != nil {
		var we *wire.Error
		if errors.As(err, &we) && we.Code == wire.CodeRequestBodyTooLarge {
			return err
		}
		return wire.Invalid("The request body is not deflated: %v.", err)
	}
	if size := x.req.Header.Get("x-ots-request-compress-size"); size != "" && size != strconv.Itoa(len(plain)) {
		return wire.Invalid("The request body has %d bytes, not %.20s.", len(plain), size)
	}
	x.request = plain
	return nil
}

// deflate compresses the response if the client asked for it, and sets the
// headers that say so.
func (x *exchange) deflate() ([]byte, error) {
	if x.req.Header.Get("x-ots-response-compress-type") != "deflate" || len(x.response) == 0 {
		return nil, nil
	}
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	if _, err := z.Write(x.response); err != nil {
		return nil, fmt.Errorf("deflating: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("deflating: %w", err)
	}
	x.w.Header().Set("x-ots-response-compress-type", "deflate")
	x.w.Header().Set("x-ots-response-compress-size", strconv.Itoa(len(x.response)))
	return b.Bytes(), nil
}

// send writes the response. The client may have disconnected already.
func (x *exchange) send(status int) {
	x.extendDeadline()
	x.w.Header().Set("Content-Length", strconv.Itoa(len(x.response)))
	x.w.WriteHeader(status)
	x.w.Write(x.response)
}

// extendDeadline gives the client writeTimeout, starting now, to receive what
// is written next. Connections without deadlines need none.
func (x *exchange) extendDeadline() {
	http.NewResponseController(x.w).SetWriteDeadline(time.Now().Add(writeTimeout))
}

// appendError appends a protobuf Error. The table API's Error has the same
// first two fields.
func appendError(dst []byte, e *wire.Error) []byte {
	dst = protowire.AppendTag(dst, 1, protowire.BytesType)
	dst = protowire.AppendString(dst, e.Code)
	dst = protowire.AppendTag(dst, 2, protowire.BytesType)
	dst = protowire.AppendString(dst, strings.ToValidUTF8(e.Message, "?"))
	if e.TunnelID != "" {
		dst = protowire.AppendTag(dst, 3, protowire.BytesType)
		dst = protowire.AppendString(dst, e.TunnelID)
	}
	return dst
}
