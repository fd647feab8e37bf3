package signing

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/aliyun/aliyun-tablestore-go-sdk/common"
)

// signedV4 are credentials with which the SDK signs version 4; it goes by the methods.
type signedV4 interface {
	GetRegion() string
	GetSigningDate() string
}

// Body gives the request a body and the header with its digest. The request has to be
// signed afterwards.
func Body(req *http.Request, body []byte) {
	req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	sum := md5.Sum(body)
	req.Header.Set("x-ots-contentmd5", base64.StdEncoding.EncodeToString(sum[:]))
}

// Request signs a request as the SDK does [docs/protocol.md, Signatures]: a MAC over the path, the
// method and every x-ots header, in the order of their names. An older signature is replaced.
func Request(req *http.Request, cred common.Credentials) {
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
		header, algorithm, salt = v4, sha256.New, Salt
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
