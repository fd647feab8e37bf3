package verify

import (
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"
)

func deleteMindsTheID(p *probe) error {
	table := p.kit.name("")
	name, _, err := p.createTunnel(table, protocol.TunnelType_Stream)
	if err != nil {
		return err
	}
	err = p.call("delete", &protocol.DeleteTunnelRequest{TableName: &table, TunnelName: &name, TunnelId: proto.String("00000000-0000-4000-8000-000000000000")}, nil)
	switch {
	case err == nil:
		return refuted("a tunnel was deleted by its name, although the request named another id.")
	case answerOf(err) == nil:
		return err
	}
	_, err = p.describe(table, name)
	return err
}

func createTimeGrows(p *probe) error {
	table := p.kit.name("")
	name, id, err := p.createTunnel(table, protocol.TunnelType_Stream)
	if err != nil {
		return err
	}
	first, err := p.describe(table, name)
	if err != nil {
		return err
	}
	if err := p.call("delete", &protocol.DeleteTunnelRequest{TableName: &table, TunnelName: &name, TunnelId: &id}, nil); err != nil {
		return err
	}
	err = p.call("create", &protocol.CreateTunnelRequest{Tunnel: &protocol.Tunnel{
		TableName: &table, TunnelName: &name, TunnelType: protocol.TunnelType_Stream.Enum(),
	}}, nil)
	if answerOf(err) != nil {
		return refuted("%v", err)
	} else if err != nil {
		return err
	}
	second, err := p.describe(table, name)
	if err != nil {
		return err
	}
	before, after := first.Tunnel.GetCreateTime(), second.Tunnel.GetCreateTime()
	if after <= before {
		return refuted("it was %d, and then %d.", before, after)
	}
	if second.Tunnel.GetTunnelId() == id {
		return refuted("the second tunnel has the id of the first.")
	}
	return nil
}
