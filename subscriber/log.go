package subscriber

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/watermill-ots/watermill-ots/ack"
)

// sdkLogConfig makes the SDK write its log lines as JSON at the given writer.
// Without it the SDK opens a file tunnelClient.log in the working directory.
func sdkLogConfig() *zap.Config {
	c := tunnel.DefaultLogConfig
	c.Level = zap.NewAtomicLevelAt(zap.InfoLevel)
	return &c
}

// sdkLogWriter turns the SDK's JSON log lines into Watermill's. The SDK reports
// each step of its channels at Info; here these are details, at Trace.
// Its errors are Debug, because the caller gets and reports the same error.
type sdkLogWriter struct{ logger watermill.LoggerAdapter }

var _ zapcore.WriteSyncer = sdkLogWriter{}

// Write takes one JSON line.
func (w sdkLogWriter) Write(line []byte) (int, error) {
	var fields watermill.LogFields
	if err := json.Unmarshal(line, &fields); err != nil {
		w.logger.Debug("SDK: "+string(line), nil)
		return len(line), nil
	}
	msg := fmt.Sprintf("SDK: %v", fields["msg"])
	level := fields["level"]
	for _, own := range []string{"msg", "level", "ts", "caller"} {
		delete(fields, own)
	}
	if level == "error" {
		w.logger.Debug(msg, fields)
	} else {
		w.logger.Trace(msg, fields)
	}
	return len(line), nil
}

// Sync does nothing: lines are passed on as they come.
func (sdkLogWriter) Sync() error { return nil }

// withStack adds the stack of the panic that err is, if it is one. Stacks are in
// logs only: the texts of errors go further, into Status, metrics and dead letters.
func withStack(fields watermill.LogFields, err error) watermill.LogFields {
	var panicked *ack.PanicError
	if errors.As(err, &panicked) {
		return fields.Add(watermill.LogFields{"stack": string(panicked.Stack)})
	}
	return fields
}
