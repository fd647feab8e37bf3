package subscriber

import (
	"net/http"

	"github.com/aliyun/aliyun-tablestore-go-sdk/common"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/internal/tunnelapi"
)

// retag puts the tag into a connect request. The SDK takes the host's name and has no
// setting for another one.
func retag(req *http.Request, tag string, cred common.Credentials) error {
	connect := new(protocol.ConnectRequest)
	return tunnelapi.Rewrite(req, cred, connect, func() {
		if connect.ClientConfig == nil {
			connect.ClientConfig = new(protocol.ClientConfig)
		}
		connect.ClientConfig.ClientTag = &tag
	})
}
