package subscriber

import (
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/aliyun/aliyun-tablestore-go-sdk/common"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/internal/signing"
)

// MaxClientTag bounds Config.ClientTag, in bytes.
const MaxClientTag = 128

// ValidClientTag reports whether a tag can go into ids, logs and consoles as it is: it is
// short enough, and has printable ASCII characters only.
func ValidClientTag(tag string) bool {
	return len(tag) <= MaxClientTag && strings.IndexFunc(tag, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}

// retag puts the tag into a connect request, and signs it again. The SDK takes the
// host's name and has no setting for another one.
func retag(req *http.Request, tag string, cred common.Credentials) error {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return fmt.Errorf("connect request: %w", err)
	}
	var connect protocol.ConnectRequest
	if err := proto.Unmarshal(body, protoadapt.MessageV2Of(&connect)); err != nil {
		return fmt.Errorf("connect request: %w", err)
	}
	if connect.ClientConfig == nil {
		connect.ClientConfig = new(protocol.ClientConfig)
	}
	connect.ClientConfig.ClientTag = &tag
	if body, err = proto.Marshal(protoadapt.MessageV2Of(&connect)); err != nil {
		return fmt.Errorf("connect request: %w", err)
	}
	signing.Body(req, body)
	signing.Request(req, cred)
	return nil
}
