package service_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/ots"
)

func TestError_shows_the_texts_of_an_answer_in_one_line(t *testing.T) {
	err := service.TableError("BatchWriteRow", 500, "a\x00b", "two\nlines", "r\r")
	if want := `BatchWriteRow: the service answered a\x00b: two\nlines (request r\r)`; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	if got, want := service.NewError("connect", 502, "", "", "", nil).Error(), "connect: the service answered OTSUnknown: HTTP status 502 Bad Gateway"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestIsTransient_is_true_for_errors_that_a_retry_may_resolve(t *testing.T) {
	answer := func(status int, code string) error {
		return fmt.Errorf("writing: %w", service.TableError("PutRow", status, code, "", ""))
	}
	for name, tc := range map[string]struct {
		err  error
		want bool
	}{
		"busy":                 {answer(503, service.CodeServerBusy), true},
		"quota":                {answer(403, service.CodeQuotaExhausted), true},
		"calls too often":      {answer(429, service.CodeFlowControl), true},
		"too many tables":      {service.TableError("CreateTable", 403, service.CodeQuotaExhausted, "Number of tables exceeded the quota.", ""), false},
		"a row, not its table": {answer(0, "OTSRowOperationConflict"), true},
		"any fault of theirs":  {answer(500, "OTSNobodyKnows"), true},
		"condition":            {answer(403, service.CodeConditionFailed), false},
		"no table":             {answer(404, service.CodeObjectNotExist), false},
		"credentials":          {answer(403, service.CodeAuthFailed), false},
		"network":              {errors.New("connection refused"), true},
		"a cancelled provider": {fmt.Errorf("asking: %w", context.Canceled), true},
	} {
		if got := service.IsTransient(tc.err); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
	if !errors.Is(answer(403, service.CodeNoPermission), ots.ErrAuth) || errors.Is(answer(403, service.CodeConditionFailed), ots.ErrAuth) {
		t.Error("refused credentials do not match ErrAuth")
	}
}
