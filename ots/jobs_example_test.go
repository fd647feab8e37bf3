package ots_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ots"
)

// csv is an Unmarshaler of a program's own: Config.Unmarshaler takes it.
type csv struct{}

func (csv) Unmarshal(r *ots.Record) (*message.Message, error) {
	amount, ok := r.Column("amount")
	if !ok {
		return nil, ots.ErrSkip // no message, and no failure
	}
	return message.NewMessage("", fmt.Appendf(nil, "%v,%v", r.PrimaryKey[0].Value, amount)), nil
}

// Records become messages in a form of the program's own.
func ExampleUnmarshaler() {
	msg, err := csv{}.Unmarshal(change())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s\n", msg.Payload)
	_, err = csv{}.Unmarshal(&ots.Record{Type: ots.Delete})
	fmt.Println("skipped:", errors.Is(err, ots.ErrSkip))
	// Output:
	// 7,12.5
	// skipped: true
}

// Keys that expire come from a provider, which is called again before they do. The module
// credentials has providers for the environment, profile files, RRSA and RAM roles.
func ExampleCredentialsProviderFunc() {
	provider := ots.CredentialsProviderFunc(func(ctx context.Context) (ots.Credentials, error) {
		// where a program asks its vault, within ctx
		return ots.Credentials{
			AccessKeyID: "STS.id", AccessKeySecret: "secret", SecurityToken: "token",
			Expires: time.Now().Add(time.Hour),
		}, nil
	})
	// subscriber.Config{Credentials: provider, …}
	c, err := provider.Credentials(context.Background())
	fmt.Println(c, err) // it never prints the secret
	// Output: credentials of STS.id <nil>
}

// An error of the service is told apart by what it means, and by its code.
func ExampleServiceError() {
	err := fmt.Errorf("subscribing: %w", &ots.ServiceError{
		Op: "connect", Status: 403, Code: "OTSAuthFailed", RequestID: "0005-7f21", Means: ots.ErrAuth,
	})
	if errors.Is(err, ots.ErrAuth) {
		fmt.Println("check the access key, its secret, and this machine's clock")
	}
	if answer, ok := errors.AsType[*ots.ServiceError](err); ok {
		fmt.Println(answer.Code, "request", answer.RequestID)
	}
	// Output:
	// check the access key, its secret, and this machine's clock
	// OTSAuthFailed request 0005-7f21
}
