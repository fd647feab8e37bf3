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
	"path"
	"slices"
	"strings"

	"github.com/aliyun/aliyun-tablestore-go-sdk/common"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/internal/signing"
)

// rewrite changes the message of a request that the SDK has built, and signs the request again. It
// is for fields of the protocol that the SDK has no argument for. message is an empty one
// of the request's type; change is called when it holds what the SDK has sent.
func rewrite(req *http.Request, cred common.Credentials, message protoadapt.MessageV1, change func()) error {
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
