package router

import (
	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/router/internal/keypath"
)

// signatureV4 is the value of signature_version that needs a region.
const signatureV4 = "v4"

// signatureVersion returns signature_version as the subscriber's type.
func (in Instance) signatureVersion() ots.SignatureVersion {
	if in.SignatureVersion == signatureV4 {
		return ots.SignatureV4
	}
	return ots.DefaultSignatureVersion
}

// signature checks signature_version and region together.
func (c *checker) signature(path string, in Instance) {
	at := keypath.Join(path, "region")
	switch service.CheckSignature(in.signatureVersion(), in.Region) {
	case service.RegionMissing:
		c.fault(at, "is missing; signature_version: v4 needs the region of the instance, such as cn-hangzhou")
	case service.RegionMalformed:
		c.fault(at, "is %s; a region is written as in cn-hangzhou, in lower case and without the rest of the endpoint", c.cfg.source.Show(at, in.Region))
	case service.RegionUnused:

		c.fault(at, "has no effect without signature_version: v4; set that too, or remove it")
		c.because(keypath.Join(path, "signature_version"))
	}
}
