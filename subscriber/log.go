package subscriber

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// sdkLogConfig makes the SDK write its log lines as JSON at the given writer.
// Without it the SDK opens a file tunnelClient.log in the working directory.
func sdkLogConfig() *zap.Config {
	c := tunnel.DefaultLogConfig
	c.Level = zap.NewAtomicLevelAt(zap.InfoLevel)
	return &c
}

// sdkLogWriter turns the SDK's JSON log lines into Watermill's. The SDK reports
// each step of its channels at Info; here these are details of ours, at Trace.
// Its errors are Debug, because whoever made the call gets and reports the same error.
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

// asError makes an error of a recovered panic's value.
func asError(recovered any) error {
	if err, ok := recovered.(error); ok {
		return err
	}
	return errors.New(fmt.Sprint(recovered))
}
