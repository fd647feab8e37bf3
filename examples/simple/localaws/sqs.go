package localaws

import (
	"cmp"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Guarantees and limits of FIFO queues, from the SQS developer guide.
const (
	deduplicationInterval    = 5 * time.Minute
	defaultVisibilityTimeout = 30 * time.Second
	maxBatchEntries          = 10
	maxWait                  = 20 * time.Second
)

// SQS is an http.Handler for the JSON protocol of Amazon SQS with FIFO queues:
// CreateQueue, GetQueueUrl, SendMessageBatch, ReceiveMessage,
// DeleteMessageBatch and DeleteQueue. Other operations are refused with
// UnsupportedOperation, never ignored. It reads the request parameters that the
// examples use.
//
// Existing embeddable servers do not work: goaws v0.4.4 supports only the query
// protocol, which the SDK's SQS client no longer uses. Older releases of that
// client do not work with the SDK core that a current S3 client needs.
//
// It follows the rules of FIFO queues: a deduplication id is accepted once in
// five minutes; messages of a group are received in order, and none of them
// while earlier ones of the group are received and not yet deleted. A request
// that is repeated because its response was lost gets the same response: a
// receive with its ReceiveRequestAttemptId, and a delete in any case.
type SQS struct {
	closed chan struct{}

	mu     sync.Mutex // guards what follows
	queues map[string]*queue
}

// queue is a FIFO queue. SQS.mu guards it.
type queue struct {
	visibility time.Duration
	messages   []*queued // in the order in which they were sent, without deleted ones
	sent       map[string]receipt
	received   map[string]receiving // by attempt id
	deleted    map[string]struct{}  // receipt handles
	sequence   int
	changed    chan struct{} // closed and replaced when messages may have become visible
}

// queued is a message in a queue.
type queued struct {
	id, body, group, deduplication string
	sequence                       int
	receives                       int
	handle                         string    // of the last receive
	hiddenUntil                    time.Time // hidden while it is received and not deleted
}

// receipt is the response to a deduplication id.
type receipt struct {
	at       time.Time
	id       string
	sequence int
}

// receiving is the response to a receive.
type receiving struct {
	at       time.Time
	messages []*queued
}

// NewSQS returns a server without queues. It does not start a goroutine.
func NewSQS() *SQS {
	return &SQS{queues: make(map[string]*queue), closed: make(chan struct{})}
}

// Close ends waiting receives. Call it at most once.
func (s *SQS) Close() { close(s.closed) }

func (s *SQS) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queues)
}

// fault is an error of the protocol. code is the SDK's name for it; query is
// its name in the older protocol, which the SDK turns into the error's code.
type fault struct{ code, query, message string }

func noSuchQueue() *fault {
	return &fault{"QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", "The specified queue does not exist."}
}

func unsupported(format string, args ...any) *fault {
	return &fault{"UnsupportedOperation", "AWS.SimpleQueueService.UnsupportedOperation", fmt.Sprintf(format, args...)}
}

// ServeHTTP answers one request.
func (s *SQS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var answer any
	var f *fault
	switch op := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "AmazonSQS."); op {
	case "CreateQueue":
		answer, f = handle(r, s.createQueue)
	case "GetQueueUrl":
		answer, f = handle(r, s.getQueueURL)
	case "SendMessageBatch":
		answer, f = handle(r, s.sendMessageBatch)
	case "ReceiveMessage":
		answer, f = handle(r, s.receiveMessage)
	case "DeleteMessageBatch":
		answer, f = handle(r, s.deleteMessageBatch)
	case "DeleteQueue":
		answer, f = handle(r, s.deleteQueue)
	default:
		f = unsupported("operation %q", op)
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	if f != nil {
		w.Header().Set("X-Amzn-Query-Error", f.query+";Sender")
		w.WriteHeader(http.StatusBadRequest)
		answer = map[string]string{"__type": "com.amazonaws.sqs#" + f.code, "message": f.message}
	}
	_ = json.NewEncoder(w).Encode(answer) // fails if the client has disconnected
}

func handle[In, Out any](r *http.Request, op func(*http.Request, In) (Out, *fault)) (any, *fault) {
	var in In
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		return nil, &fault{"InvalidParameterValue", "InvalidParameterValue", err.Error()}
	}
	return op(r, in)
}

type queueURL struct{ QueueUrl string }

type createQueueRequest struct {
	QueueName  string
	Attributes map[string]string
}

func (s *SQS) createQueue(r *http.Request, in createQueueRequest) (queueURL, *fault) {
	if in.Attributes["FifoQueue"] != "true" || !strings.HasSuffix(in.QueueName, ".fifo") {
		return queueURL{}, unsupported("only FIFO queues, with names that end in .fifo")
	}
	visibility := defaultVisibilityTimeout
	if v, ok := in.Attributes["VisibilityTimeout"]; ok {
		seconds, err := strconv.Atoi(v)
		if err != nil || seconds < 0 {
			return queueURL{}, &fault{"InvalidAttributeValue", "InvalidAttributeValue", "VisibilityTimeout"}
		}
		visibility = time.Duration(seconds) * time.Second
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.queues[in.QueueName] == nil {
		s.queues[in.QueueName] = &queue{
			visibility: visibility, sent: make(map[string]receipt), received: make(map[string]receiving), deleted: make(map[string]struct{}),
			changed: make(chan struct{}),
		}
	}
	return urlOf(r, in.QueueName), nil
}

func (s *SQS) getQueueURL(r *http.Request, in struct{ QueueName string }) (queueURL, *fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.queues[in.QueueName] == nil {
		return queueURL{}, noSuchQueue()
	}
	return urlOf(r, in.QueueName), nil
}

func urlOf(r *http.Request, name string) queueURL {
	return queueURL{"http://" + r.Host + "/000000000000/" + name}
}

func (s *SQS) deleteQueue(_ *http.Request, in queueURL) (struct{}, *fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queues[path.Base(in.QueueUrl)]
	if q == nil {
		return struct{}{}, noSuchQueue()
	}
	delete(s.queues, path.Base(in.QueueUrl))
	close(q.changed)
	return struct{}{}, nil
}

type sendEntry struct{ Id, MessageBody, MessageGroupId, MessageDeduplicationId string }

type sendRequest struct {
	QueueUrl string
	Entries  []sendEntry
}

type sent struct{ Id, MessageId, MD5OfMessageBody, SequenceNumber string }

type sendAnswer struct {
	Successful []sent
	Failed     []struct{} // always empty: this server accepts a whole request or nothing
}

func (s *SQS) sendMessageBatch(_ *http.Request, in sendRequest) (sendAnswer, *fault) {
	ids := make([]string, len(in.Entries))
	for i, e := range in.Entries {
		ids[i] = e.Id
		if e.MessageGroupId == "" || e.MessageDeduplicationId == "" {
			return sendAnswer{}, &fault{"MissingParameter", "MissingParameter", "The request must contain the parameters MessageGroupId and MessageDeduplicationId."}
		}
	}
	if f := checkBatch(ids); f != nil {
		return sendAnswer{}, f
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queues[path.Base(in.QueueUrl)]
	if q == nil {
		return sendAnswer{}, noSuchQueue()
	}
	var answer sendAnswer
	for _, e := range in.Entries {
		r := q.send(e, time.Now())
		sum := md5.Sum([]byte(e.MessageBody))
		answer.Successful = append(answer.Successful, sent{e.Id, r.id, hex.EncodeToString(sum[:]), strconv.Itoa(r.sequence)})
	}
	return answer, nil
}

// send adds a message to the queue, unless its deduplication id was used
// before.
func (q *queue) send(e sendEntry, now time.Time) receipt {
	if r, ok := q.sent[e.MessageDeduplicationId]; ok && now.Sub(r.at) < deduplicationInterval {
		return r
	}
	q.sequence++
	r := receipt{at: now, id: fmt.Sprintf("message-%d", q.sequence), sequence: q.sequence}
	q.sent[e.MessageDeduplicationId] = r
	q.messages = append(q.messages, &queued{
		id: r.id, body: e.MessageBody, group: e.MessageGroupId, deduplication: e.MessageDeduplicationId, sequence: r.sequence,
	})
	q.announce()
	return r
}

// announce wakes waiting receives.
func (q *queue) announce() {
	close(q.changed)
	q.changed = make(chan struct{})
}

func checkBatch(ids []string) *fault {
	seen := make(map[string]bool, len(ids))
	for _, id := range ids {
		if seen[id] {
			return &fault{"BatchEntryIdsNotDistinct", "AWS.SimpleQueueService.BatchEntryIdsNotDistinct", "Id " + id + " repeated."}
		}
		seen[id] = true
	}
	switch {
	case len(ids) == 0:
		return &fault{"EmptyBatchRequest", "AWS.SimpleQueueService.EmptyBatchRequest", "There should be at least one entry in the request."}
	case len(ids) > maxBatchEntries:
		return &fault{"TooManyEntriesInBatchRequest", "AWS.SimpleQueueService.TooManyEntriesInBatchRequest", fmt.Sprintf("Maximum number of entries per request are %d. You have sent %d.", maxBatchEntries, len(ids))}
	}
	return nil
}

type receiveRequest struct {
	QueueUrl                string
	MaxNumberOfMessages     int
	WaitTimeSeconds         int
	ReceiveRequestAttemptId string
}

type received struct {
	MessageId, ReceiptHandle, Body, MD5OfBody string
	Attributes                                map[string]string
}

type receiveAnswer struct{ Messages []received }

// receiveMessage waits for messages for the requested time. It returns all
// system attributes, whatever the request asks for.
func (s *SQS) receiveMessage(r *http.Request, in receiveRequest) (receiveAnswer, *fault) {
	limit := cmp.Or(in.MaxNumberOfMessages, 1)
	if limit < 1 || limit > maxBatchEntries {
		return receiveAnswer{}, &fault{"InvalidParameterValue", "InvalidParameterValue", "MaxNumberOfMessages must be between 1 and 10."}
	}
	wait := time.NewTimer(min(time.Duration(in.WaitTimeSeconds)*time.Second, maxWait))
	defer wait.Stop()
	for over := false; ; {
		s.mu.Lock()
		q := s.queues[path.Base(in.QueueUrl)]
		if q == nil {
			s.mu.Unlock()
			return receiveAnswer{}, noSuchQueue()
		}
		messages, next := q.receive(in.ReceiveRequestAttemptId, limit, time.Now())
		changed := q.changed
		s.mu.Unlock()
		if len(messages) > 0 || over {
			return receiveAnswer{messages}, nil
		}
		visible := time.NewTimer(next)
		select {
		case <-changed:
		case <-visible.C:
		case <-wait.C:
			over = true
		case <-r.Context().Done(): // the client has disconnected
			visible.Stop()
			return receiveAnswer{}, nil
		case <-s.closed:
			visible.Stop()
			return receiveAnswer{}, nil
		}
		visible.Stop()
	}
}

// receive returns the first messages of the groups that are not locked, or
// again the messages of an earlier response to the attempt. If there are none,
// it returns the time until the next one may become visible.
func (q *queue) receive(attempt string, limit int, now time.Time) (messages []received, next time.Duration) {
	if r, ok := q.received[attempt]; ok && attempt != "" && now.Sub(r.at) < deduplicationInterval {
		for _, m := range r.messages {
			m.hiddenUntil = now.Add(q.visibility)
			messages = append(messages, m.received())
		}
		return messages, 0
	}
	next = maxWait
	locked := make(map[string]bool) // groups with an earlier message in flight
	for _, m := range q.messages {
		if hidden := m.hiddenUntil.Sub(now); hidden > 0 {
			locked[m.group] = true
			next = min(next, hidden)
		}
	}
	r := receiving{at: now}
	for _, m := range q.messages {
		if len(messages) == limit {
			break
		}
		if locked[m.group] {
			continue
		}
		m.receives++
		m.handle = fmt.Sprintf("%s/%d", m.id, m.receives)
		m.hiddenUntil = now.Add(q.visibility)
		r.messages = append(r.messages, m)
		messages = append(messages, m.received())
	}
	if attempt != "" && len(messages) > 0 {
		q.received[attempt] = r
	}
	return messages, next
}

// received returns the message in the form of a response.
func (m *queued) received() received {
	sum := md5.Sum([]byte(m.body))
	return received{
		MessageId: m.id, ReceiptHandle: m.handle, Body: m.body, MD5OfBody: hex.EncodeToString(sum[:]),
		Attributes: map[string]string{
			"MessageGroupId": m.group, "MessageDeduplicationId": m.deduplication,
			"SequenceNumber": strconv.Itoa(m.sequence), "ApproximateReceiveCount": strconv.Itoa(m.receives),
		},
	}
}

type deleteEntry struct{ Id, ReceiptHandle string }

type deleteRequest struct {
	QueueUrl string
	Entries  []deleteEntry
}

type deleted struct{ Id string }

type notDeleted struct {
	Id, Code, Message string
	SenderFault       bool
}

type deleteAnswer struct {
	Successful []deleted
	Failed     []notDeleted
}

func (s *SQS) deleteMessageBatch(_ *http.Request, in deleteRequest) (deleteAnswer, *fault) {
	ids := make([]string, len(in.Entries))
	for i, e := range in.Entries {
		ids[i] = e.Id
	}
	if f := checkBatch(ids); f != nil {
		return deleteAnswer{}, f
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queues[path.Base(in.QueueUrl)]
	if q == nil {
		return deleteAnswer{}, noSuchQueue()
	}
	var answer deleteAnswer
	for _, e := range in.Entries {
		if q.remove(e.ReceiptHandle, time.Now()) {
			answer.Successful = append(answer.Successful, deleted{e.Id})
		} else {
			answer.Failed = append(answer.Failed, notDeleted{e.Id, "ReceiptHandleIsInvalid", "The receipt handle has expired.", true})
		}
	}
	return answer, nil
}

// remove deletes the message that is, or was, in flight with the handle.
func (q *queue) remove(handle string, now time.Time) bool {
	if _, ok := q.deleted[handle]; ok {
		return true
	}
	for i, m := range q.messages {
		if m.handle == handle && m.hiddenUntil.After(now) {
			q.messages = append(q.messages[:i], q.messages[i+1:]...)
			q.deleted[handle] = struct{}{}
			q.announce() // the group's next message may be received
			return true
		}
	}
	return false
}
