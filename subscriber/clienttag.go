package subscriber

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"slices"
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
	req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	sum := md5.Sum(body)
	req.Header.Set("x-ots-contentmd5", base64.StdEncoding.EncodeToString(sum[:]))
	sign(req, cred)
	return nil
}

// signedV4 are credentials with which the SDK signs version 4; it goes by the methods.
type signedV4 interface {
	GetRegion() string
	GetSigningDate() string
}

// sign signs a request as the SDK does [docs/protocol.md, Signatures]: a MAC over the path, the method
// and every x-ots header, in the order of their names.
func sign(req *http.Request, cred common.Credentials) {
	const v2, v4 = "x-ots-signature", "x-ots-signaturev4"
	for _, name := range []string{"x-ots-ststoken", "x-ots-signregion", "x-ots-signdate", v2, v4} {
		req.Header.Del(name)
	}
	req.Header.Set("x-ots-accesskeyid", cred.GetAccessKeyID())
	if token := cred.GetSecurityToken(); token != "" {
		req.Header.Set("x-ots-ststoken", token)
	}
	header, algorithm, salt := v2, sha1.New, ""
	if c, ok := cred.(signedV4); ok {
		req.Header.Set("x-ots-signregion", c.GetRegion())
		req.Header.Set("x-ots-signdate", c.GetSigningDate())
		header, algorithm, salt = v4, sha256.New, signing.Salt
	}
	var names []string
	for name := range req.Header {
		if name = strings.ToLower(name); strings.HasPrefix(name, "x-ots-") && req.Header.Get(name) != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	text := req.URL.Path + "\n" + req.Method + "\n\n"
	for _, name := range names {
		text += name + ":" + strings.TrimSpace(req.Header.Get(name)) + "\n"
	}
	mac := hmac.New(algorithm, []byte(cred.GetAccessKeySecret()))
	mac.Write([]byte(text + salt))
	req.Header.Set(header, base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}
