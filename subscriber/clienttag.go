package subscriber

import (
	"net/http"
	"strings"

	"github.com/aliyun/aliyun-tablestore-go-sdk/common"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
)

// MaxClientTag bounds Config.ClientTag, in bytes.
const MaxClientTag = 128

// ValidClientTag reports whether a tag can go into ids, logs and consoles as it is: it is
// short enough, and has printable ASCII characters only.
func ValidClientTag(tag string) bool {
	return len(tag) <= MaxClientTag && strings.IndexFunc(tag, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}

// retag puts the tag into a connect request. The SDK takes the host's name and has no
// setting for another one.
func retag(req *http.Request, tag string, cred common.Credentials) error {
	connect := new(protocol.ConnectRequest)
	return rewrite(req, cred, connect, func() {
		if connect.ClientConfig == nil {
			connect.ClientConfig = new(protocol.ClientConfig)
		}
		connect.ClientConfig.ClientTag = &tag
	})
}
