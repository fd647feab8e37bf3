package service

import (
	"errors"
	"fmt"

	"github.com/watermill-ots/watermill-ots/ots"
)

// Connection has the fields that the Configs of subscriber and publisher share, under the
// same names: how to reach an instance.
type Connection struct {
	Endpoint, Instance           string
	AllowInsecure                bool
	AccessKeyID, AccessKeySecret string
	Credentials                  ots.CredentialsProvider
	SignatureVersion             ots.SignatureVersion
	Region                       string
}

// Faults returns all faults, each as a sentence that names the field of Config.
func (c Connection) Faults() (faults []error) {
	if err := c.endpoint(); err != nil {
		faults = append(faults, err)
	}
	if c.Instance == "" {
		faults = append(faults, errors.New("Config.Instance is empty: set the name of the Tablestore instance"))
	}
	if c.Credentials == nil {
		if c.AccessKeyID == "" {
			faults = append(faults, errors.New("Config.AccessKeyID is empty: set it, or Config.Credentials"))
		}
		if c.AccessKeySecret == "" {
			faults = append(faults, errors.New("Config.AccessKeySecret is empty: set it, or Config.Credentials"))
		}
	}
	if err := c.signature(); err != nil {
		faults = append(faults, err)
	}
	return faults
}

func (c Connection) endpoint() error {
	switch fault, host := CheckEndpoint(c.Endpoint, c.AllowInsecure); fault {
	case EndpointEmpty:
		return errors.New(`Config.Endpoint is empty: set the instance's URL, such as "https://my-instance.cn-hangzhou.ots.aliyuncs.com"`)
	case EndpointMalformed:
		return errors.New("Config.Endpoint is not a URL: it must be http(s):// and a host")
	case EndpointHasMore:
		return fmt.Errorf("Config.Endpoint has more than http(s):// and the host %q: it must have no path, query, fragment or user", host)
	case EndpointNoHost:
		return fmt.Errorf("Config.Endpoint is %q: it must be a URL with http(s):// and a host", c.Endpoint)
	case EndpointPlain:
		return fmt.Errorf("Config.Endpoint is %q: plain http is only allowed for loopback addresses; use https, or set Config.AllowInsecure", c.Endpoint)
	}
	return nil
}

// signature returns the fault of SignatureVersion and Region, if any.
func (c Connection) signature() error {
	switch CheckSignature(c.SignatureVersion, c.Region) {
	case SignatureUnknown:
		return fmt.Errorf("Config.SignatureVersion is %d: use SignatureV2 or SignatureV4", uint8(c.SignatureVersion))
	case RegionUnused:
		return fmt.Errorf("Config.Region is %q, which only signature version 4 uses: set Config.SignatureVersion to SignatureV4, or leave Region empty", c.Region)
	case RegionMissing:
		return fmt.Errorf(`Config.Region is empty: signature version 4 needs the region of the instance, such as "cn-hangzhou"`)
	case RegionMalformed:
		return fmt.Errorf(`Config.Region is %q: a region is written as in "cn-hangzhou", in lower case and without the rest of the endpoint`, c.Region)
	}
	return nil
}
