package tunnelapi

import (
	"fmt"
	"io"
	"net/http"
	"path"

	"github.com/aliyun/aliyun-tablestore-go-sdk/common"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/internal/signing"
)

// Rewrite changes the message of a request that the SDK has built, and signs the request again. It
// is for fields of the protocol that the SDK has no argument for. message is an empty one
// of the request's type; change is called when it holds what the SDK has sent.
func Rewrite(req *http.Request, cred common.Credentials, message protoadapt.MessageV1, change func()) error {
	op := path.Base(req.URL.Path)
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return fmt.Errorf("%s request: %w", op, err)
	}
	if err := proto.Unmarshal(body, protoadapt.MessageV2Of(message)); err != nil {
		return fmt.Errorf("%s request: %w", op, err)
	}
	change()
	if body, err = proto.Marshal(protoadapt.MessageV2Of(message)); err != nil {
		return fmt.Errorf("%s request: %w", op, err)
	}
	signing.Body(req, body)
	signing.Request(req, cred)
	return nil
}
