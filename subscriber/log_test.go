package subscriber

import (
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"go.uber.org/zap"

	sdk "github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
)

// bridged is a zap logger as the SDK builds it, on the bridge.
func bridged(t *testing.T, logger watermill.LoggerAdapter) *zap.Logger {
	conf := sdkLogConfig()
	lg, err := conf.Build(sdk.ReplaceLogCore(sdkLogWriter{logger}, *conf))
	if err != nil {
		t.Fatal(err)
	}
	return lg
}

func TestSDKLog_lines_become_watermills_with_their_fields(t *testing.T) {
	logger := watermill.NewCaptureLogger()
	lg := bridged(t, logger)
	lg.Debug("hidden")
	lg.Info("step", zap.String("channelId", "c1"), zap.Int("n", 7))
	lg.Error("failed", zap.Error(errors.New("why")))
	captured := logger.Captured()
	if n := len(captured[watermill.TraceLogLevel]); n != 1 {
		t.Fatalf("%d trace lines", n)
	}
	step := captured[watermill.TraceLogLevel][0]
	if step.Msg != "SDK: step" || step.Fields["channelId"] != "c1" || step.Fields["n"] != 7.0 || len(step.Fields) != 2 {
		t.Errorf("got %+v", step)
	}
	if n := len(captured[watermill.DebugLogLevel]); n != 1 {
		t.Fatalf("%d debug lines", n)
	}
	failed := captured[watermill.DebugLogLevel][0]
	if failed.Msg != "SDK: failed" || failed.Fields["error"] != "why" {
		t.Errorf("got %+v", failed)
	}
	if len(captured[watermill.ErrorLogLevel]) != 0 || len(captured[watermill.InfoLogLevel]) != 0 {
		t.Error("lines of the SDK are above Debug")
	}
}

func TestSDKLog_line_that_is_no_JSON_is_passed_on(t *testing.T) {
	logger := watermill.NewCaptureLogger()
	if n, err := (sdkLogWriter{logger}).Write([]byte("odd")); n != 3 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	if lines := logger.Captured()[watermill.DebugLogLevel]; len(lines) != 1 || lines[0].Msg != "SDK: odd" {
		t.Errorf("got %+v", lines)
	}
}

func TestSDKLog_no_file_is_written(t *testing.T) {
	t.Chdir(t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(1)
		s := fakeSubscriber(t, f, nil)
		messages := subscribeTo(t, s)
		(<-messages).Ack()
		f.always("heartbeat", gone) // the SDK logs errors too
		time.Sleep(time.Minute)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	entries, err := os.ReadDir(".")
	if err != nil || len(entries) != 0 {
		t.Errorf("the working directory has %v, %v", entries, err)
	}
}
