package pubsubtest

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// restartURL makes the test binary the suite's RestartServiceCommand.
var restartURL = flag.String("restart", "", "only ask the emulator's owner at this `URL` to restart it")

func TestMain(m *testing.M) {
	flag.Parse()
	if *restartURL != "" {
		if err := askRestart(*restartURL); err != nil {
			fmt.Fprintln(os.Stderr, "restarting the emulator:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if err := suppressRaces(); err != nil {
		fmt.Fprintln(os.Stderr, "suppressing the suite's own race:", err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m,
		// A leak of the suite: TestReconnect never closes the channel over
		// which this goroutine ranges.
		goleak.IgnoreAnyFunction("github.com/ThreeDotsLabs/watermill/pubsub/tests.TestReconnect.func2"),
		// A leak of the suite: when a test has received what it waited for, a
		// duplicate may still be sent to a channel without a receiver.
		goleak.IgnoreAnyFunction("github.com/ThreeDotsLabs/watermill/internal/subscriber.(*multiplier).Subscribe.func2"),
		goleak.Cleanup(func(code int) {
			if err := removeEmulator(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				code = max(code, 1)
			}
			os.Exit(code)
		}),
	)
}

// askRestart requests a restart, and returns when the emulator serves again.
func askRestart(url string) error {
	resp, err := http.Post(url, "", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, err := io.ReadAll(resp.Body)
		return fmt.Errorf("%s: %s (%v)", resp.Status, text, err)
	}
	return nil
}
