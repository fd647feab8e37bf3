package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/internal/tunnelapi"
	"github.com/watermill-ots/watermill-ots/ots"
)

// topic names a tunnel of a table.
type topic struct{ table, tunnel string }

// String returns TABLE/TUNNEL.
func (t topic) String() string { return t.table + "/" + t.tunnel }

// parseTopic reads TABLE/TUNNEL.
func parseTopic(arg string) (topic, error) {
	table, name, ok := strings.Cut(arg, "/")
	switch {
	case !ok:
		return topic{}, usageError{fmt.Errorf("the argument is %q; it takes TABLE/TUNNEL, such as orders/warehouse", arg)}
	case !service.IsTableName(table):
		return topic{}, usageError{fmt.Errorf("the argument is %q; before the slash it takes the name of a table, which has %s", arg, service.TableNameRule)}
	case !service.IsTunnelName(name):
		return topic{}, usageError{fmt.Errorf("the argument is %q; behind the slash it takes the name of a tunnel, which has %s", arg, service.TunnelNameRule)}
	}
	return topic{table, name}, nil
}

// checkTable refuses what cannot be the name of a table.
func checkTable(from, name string) error {
	if !service.IsTableName(name) {
		return usageError{fmt.Errorf("%s is %q; it takes the name of a table, which has %s", from, name, service.TableNameRule)}
	}
	return nil
}

// isExisting reports whether the service refused to create what exists.
func isExisting(err error) bool {
	return service.HasCode(err, tunnel.ErrCodeTunnelExist, service.CodeObjectAlreadyExist)
}

// retried makes a call that changes nothing, and again for some seconds while it fails for a
// reason that may pass.
func retried(ctx context.Context, call func() error) error {
	for wait := 100 * time.Millisecond; ; wait *= 2 {
		err := call()
		if err == nil || !mayPass(err) || wait > 2*time.Second {
			return err
		}
		if stop := pause(ctx, wait); stop != nil {
			return errors.Join(err, stop)
		}
	}
}

// mayPass reports whether the service answered that it is busy. An endpoint that cannot be
// reached is told at once.
func mayPass(err error) bool {
	if _, answered := errors.AsType[*ots.ServiceError](err); !answered {
		return false
	}
	class := tunnelapi.Classify(err)
	return class == service.Throttled || class == service.Transient && service.IsTransient(err)
}

// pause waits, and returns why ctx ended if it did.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// advise adds to an error of the service what can be done about it.
func (in *instance) advise(err error) error {
	if err == nil {
		return nil
	}
	if _, answered := errors.AsType[*ots.ServiceError](err); !answered {
		return fmt.Errorf("%w; check --endpoint (%s) and that it can be reached from here", err, in.endpoint)
	}
	if errors.Is(err, ots.ErrAuth) {
		region := ""
		if in.region != "" {
			region = fmt.Sprintf(", that --region %s is the region of the instance", in.region)
		}
		return fmt.Errorf("%w; check the access key%s, and that it may use instance %q", err, region, in.instance())
	}
	return err
}

// listTables returns the names of the instance's tables, sorted.
func (in *instance) listTables(ctx context.Context) (names []string, err error) {
	err = retried(ctx, func() error {
		return in.tables.Call(ctx, "ListTable", func(c *tablestore.TableStoreClient) error {
			resp, err := c.ListTable()
			if err == nil {
				names = resp.TableNames
			}
			return err
		})
	})
	slices.Sort(names)
	if err != nil {
		return nil, fmt.Errorf("listing the tables of instance %s: %w", in.instance(), in.advise(err))
	}
	return names, nil
}

// describeTable looks a table up.
func (in *instance) describeTable(ctx context.Context, name string) (resp *tablestore.DescribeTableResponse, err error) {
	err = retried(ctx, func() error {
		return in.tables.Call(ctx, "DescribeTable", func(c *tablestore.TableStoreClient) (err error) {
			resp, err = c.DescribeTable(&tablestore.DescribeTableRequest{TableName: name})
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("describing table %s: %w", name, in.advise(err))
	}
	return resp, nil
}

// listTunnels returns the tunnels of a table, sorted by name.
func (in *instance) listTunnels(ctx context.Context, table string) (tunnels []*tunnel.TunnelInfo, err error) {
	err = retried(ctx, func() error {
		return in.tunnels.Call(ctx, "list", func(api *tunnel.TunnelApi) error {
			resp, err := api.ListTunnel(&tunnel.ListTunnelRequest{TableName: table})
			if err == nil {
				tunnels = resp.Tunnels
			}
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("listing the tunnels of table %s: %w", table, in.advise(err))
	}
	slices.SortFunc(tunnels, func(a, b *tunnel.TunnelInfo) int { return strings.Compare(a.TunnelName, b.TunnelName) })
	return tunnels, nil
}

// describeTunnel looks a tunnel up. If it does not exist, the error says which the table has.
func (in *instance) describeTunnel(ctx context.Context, t topic) (resp *tunnel.DescribeTunnelResponse, err error) {
	err = retried(ctx, func() error {
		return in.tunnels.Call(ctx, "describe", func(api *tunnel.TunnelApi) (err error) {
			resp, err = api.DescribeTunnel(&tunnel.DescribeTunnelRequest{TableName: t.table, TunnelName: t.tunnel})
			return err
		})
	})
	if err == nil {
		return resp, nil
	}
	if errors.Is(err, ots.ErrTunnelGone) {
		if others, listErr := in.listTunnels(ctx, t.table); listErr == nil {
			names := make([]string, len(others))
			for i, o := range others {
				names[i] = o.TunnelName
			}
			has := "the table has no tunnels"
			if len(names) > 0 {
				has = "the table has " + strings.Join(names, ", ")
			}
			return nil, fmt.Errorf("there is no tunnel %s (%w); %s", t, err, has)
		}
	}
	return nil, fmt.Errorf("describing tunnel %s: %w", t, in.advise(err))
}

// createTunnel creates a tunnel of the type and with the start that req has.
func (in *instance) createTunnel(ctx context.Context, t topic, req *tunnel.CreateTunnelRequest) error {
	req.TableName, req.TunnelName = t.table, t.tunnel
	err := in.tunnels.Call(ctx, "create", func(api *tunnel.TunnelApi) error {
		_, err := api.CreateTunnel(req)
		return err
	})
	if errors.Is(err, ots.ErrTunnelGone) {
		return fmt.Errorf("creating tunnel %s: %w; the table must exist, with a stream, in instance %s", t, err, in.instance())
	}
	if err != nil {
		return fmt.Errorf("creating tunnel %s: %w", t, in.advise(err))
	}
	return nil
}

// deleteTunnel deletes the tunnel of this id, no other of its name.
func (in *instance) deleteTunnel(ctx context.Context, t topic, id string) error {
	if err := in.tunnels.Delete(ctx, t.table, t.tunnel, id); err != nil {
		return fmt.Errorf("deleting tunnel %s: %w", t, in.advise(err))
	}
	return nil
}

// instance returns the instance's name.
func (in *instance) instance() string { return in.connection.instance }
