package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/spf13/cobra"

	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/internal/tunnelapi"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// Environment variables of the connection. Keys have no flags, because the list of
// processes shows flags to everyone on the machine.
const (
	envEndpoint = "OTS_ENDPOINT"
	envInstance = "OTS_INSTANCE"
	envRegion   = "OTS_REGION"
	envKeyID    = "OTS_ACCESS_KEY_ID"
	envSecret   = "OTS_ACCESS_KEY_SECRET"
	envToken    = "OTS_SECURITY_TOKEN"
	envProfile  = "OTS_PROFILE"
	envProfiles = "OTS_PROFILES"
)

// connection says how to reach an instance.
//
// Each setting comes from the first of these that has it: its flag, the profile that
// --profile names, the environment, the profile that $OTS_PROFILE names or the file's
// default. The two keys and the token always come from one place: the first that has
// one of them.
type connection struct {
	endpoint, instance, region string
	insecure                   bool
	profile, profiles          string
	credentials                ots.Credentials
}

// addFlags adds the connection's flags.
func (c *connection) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.endpoint, "endpoint", "", "`URL` of the instance, such as https://my-instance.cn-hangzhou.ots.aliyuncs.com (default $"+envEndpoint+")")
	f.StringVar(&c.instance, "instance", "", "`NAME` of the instance (default $"+envInstance+")")
	f.StringVar(&c.region, "region", "", "`REGION` of the instance, such as cn-hangzhou; requests are then signed with version 4 (default $"+envRegion+")")
	f.BoolVar(&c.insecure, "allow-insecure", false, "accept http:// endpoints that are not on this machine")
	f.StringVar(&c.profile, "profile", "", "`NAME` of a profile with endpoint, instance and keys (default $"+envProfile+")")
	f.StringVar(&c.profiles, "profiles", "", "`FILE` of the profiles (default $"+envProfiles+", or ots/profiles.yaml in the user's configuration directory)")
	if err := cmd.RegisterFlagCompletionFunc("profile", c.completeProfile); err != nil {
		panic(err) // the flag was added above
	}
}

// source is a place where settings may come from.
type source struct {
	profile
	name string // for errors
}

// complete reads what no flag has set from the profile and the environment. The error
// names what is missing.
func (c *connection) complete() error {
	sources, err := c.sources()
	if err != nil {
		return err
	}
	for _, s := range sources {
		c.endpoint = cmp.Or(c.endpoint, s.Endpoint)
		c.instance = cmp.Or(c.instance, s.Instance)
		c.region = cmp.Or(c.region, s.Region)
		c.insecure = c.insecure || s.AllowInsecure
		if c.credentials == (ots.Credentials{}) {
			c.credentials = ots.Credentials{AccessKeyID: s.AccessKeyID, AccessKeySecret: s.AccessKeySecret, SecurityToken: s.SecurityToken}
		}
	}
	return c.check()
}

// sources returns where settings come from that have no flag, in the order in which they
// are asked.
func (c *connection) sources() ([]source, error) {
	environment := source{name: "the environment", profile: profile{
		Endpoint: os.Getenv(envEndpoint), Instance: os.Getenv(envInstance), Region: os.Getenv(envRegion),
		AccessKeyID: os.Getenv(envKeyID), AccessKeySecret: os.Getenv(envSecret), SecurityToken: os.Getenv(envToken),
	}}
	file, err := c.profilesFile()
	if err != nil {
		return nil, err
	}
	if c.profile != "" {
		p, err := file.find(c.profile, "--profile")
		return []source{{p, "the profile " + c.profile}, environment}, err
	}
	name, from := os.Getenv(envProfile), "$"+envProfile
	if name == "" {
		name, from = file.Default, "default in "+file.path
	}
	if name == "" {
		return []source{environment}, nil
	}
	p, err := file.find(name, from)
	return []source{environment, {p, "the profile " + name}}, err
}

// check returns a usage error if something is missing or does not fit together.
func (c *connection) check() error {
	var missing []string
	for _, setting := range []struct{ value, name string }{
		{c.endpoint, "--endpoint (or the environment variable " + envEndpoint + ")"},
		{c.instance, "--instance (or the environment variable " + envInstance + ")"},
		{c.credentials.AccessKeyID, "the environment variable " + envKeyID},
		{c.credentials.AccessKeySecret, "the environment variable " + envSecret},
	} {
		if setting.value == "" {
			missing = append(missing, setting.name)
		}
	}
	if len(missing) > 0 {
		return usageError{fmt.Errorf("not set: %s; a profile may have them all, see --profile", strings.Join(missing, ", "))}
	}
	var faults []error
	for _, fault := range c.serviceConnection().Faults() { // they name the fields of a Config
		faults = append(faults, errors.New(fieldNames.Replace(fault.Error())))
	}
	if len(faults) > 0 {
		return usageError{errors.Join(faults...)}
	}
	return nil
}

// fieldNames turns the names of fields in faults into those of flags.
var fieldNames = strings.NewReplacer("Config.Endpoint", "--endpoint", "Config.Instance", "--instance", "Config.Region", "--region",
	"set Config.AllowInsecure", "add --allow-insecure", "Config.SignatureVersion", "the version of signatures")

// serviceConnection returns the connection in the form of package service.
func (c *connection) serviceConnection() service.Connection {
	return service.Connection{
		Endpoint: c.endpoint, Instance: c.instance, AllowInsecure: c.insecure,
		Credentials: c, SignatureVersion: c.signature(), Region: c.region,
	}
}

// signature returns the version of signatures: 4 where there is a region.
func (c *connection) signature() ots.SignatureVersion {
	if c.region != "" {
		return ots.SignatureV4
	}
	return ots.SignatureV2
}

// Credentials implements ots.CredentialsProvider.
func (c *connection) Credentials(context.Context) (ots.Credentials, error) {
	if c.credentials.AccessKeyID == "" {
		return ots.Credentials{}, errors.New("there is no access key")
	}
	return c.credentials, nil
}

// What "ots emulator --demo" serves, and what commands use where nothing is set.
const (
	demoAddr     = "127.0.0.1:8087"
	demoEndpoint = "http://" + demoAddr
	demoInstance = "demo"
)

// orDemo completes the connection. Where nothing at all is set, neither by flags nor by the
// environment nor by a profile, and an emulator listens at its default address, it is that
// one, which say is called with.
func (c *connection) orDemo(say func(string)) error {
	nothing := c.endpoint == "" && c.instance == "" && c.profile == ""
	err := c.complete()
	if err == nil || !nothing || c.endpoint != "" || c.instance != "" || c.credentials != (ots.Credentials{}) {
		return err
	}
	if _, ok := errors.AsType[usageError](err); !ok {
		return err
	}
	conn, dialErr := net.DialTimeout("tcp", demoAddr, 500*time.Millisecond)
	if dialErr != nil {
		return usageError{fmt.Errorf("%w; or try it with the emulator: ots emulator --demo", err)}
	}
	conn.Close() // it was only a question
	c.endpoint, c.instance = demoEndpoint, demoInstance
	c.credentials = ots.Credentials{AccessKeyID: "demo", AccessKeySecret: "demo"}
	say("No connection is set: using the emulator at " + demoEndpoint + ".")
	return nil
}

// callTimeout bounds one call of the service.
const callTimeout = 30 * time.Second

// instance is an open connection.
type instance struct {
	*connection
	tunnels *tunnelapi.Client
	tables  *service.TableClient
	close   func() // releases connections and the credentials
}

// open completes the connection and opens it. Close the instance.
func (c *connection) open(cmd *cobra.Command) (*instance, error) {
	if err := c.orDemo(func(text string) { fmt.Fprintln(cmd.ErrOrStderr(), text) }); err != nil {
		return nil, err
	}
	return c.dial(), nil
}

// dial opens a complete connection. Close the instance.
func (c *connection) dial() *instance {
	transport := service.NewTransport(32)
	creds := service.NewCredentialsCache(c, watermill.NopLogger{})
	endpoint := strings.TrimRight(c.endpoint, "/")
	return &instance{
		connection: c,
		tunnels:    &tunnelapi.Client{URL: endpoint, Instance: c.instance, Region: c.region, Base: transport, Creds: creds, Timeout: callTimeout},
		tables:     &service.TableClient{Endpoint: endpoint, Instance: c.instance, Region: c.region, Transport: transport, Credentials: creds, Timeout: callTimeout},
		close: func() {
			creds.Close(service.CredentialsGrace)
			transport.CloseIdleConnections()
		},
	}
}

// subscriberConfig returns a Config with the connection's fields.
func (c *connection) subscriberConfig() subscriber.Config {
	return subscriber.Config{
		Endpoint: c.endpoint, Instance: c.instance, AllowInsecure: c.insecure, Credentials: c,
		SignatureVersion: c.signature(), Region: c.region,
	}
}
