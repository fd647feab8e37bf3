package tunnels

import (
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

// operation executes one operation: it decodes body and appends the response to
// dst.
type operation func(s *Service, body, dst []byte) ([]byte, error)

// operations are all operations except readrecords, by the last element of
// their path.
var operations = map[string]operation{
	"create":         messages[protocol.CreateTunnelRequest]((*Service).create),
	"delete":         messages[protocol.DeleteTunnelRequest]((*Service).deleteTunnel),
	"list":           messages[protocol.ListTunnelRequest]((*Service).list),
	"describe":       messages[protocol.DescribeTunnelRequest]((*Service).describe),
	"connect":        messages[protocol.ConnectRequest]((*Service).connect),
	"heartbeat":      messages[protocol.HeartbeatRequest]((*Service).heartbeat),
	"shutdown":       messages[protocol.ShutdownRequest]((*Service).shutdown),
	"getcheckpoint":  messages[protocol.GetCheckpointRequest]((*Service).getCheckpoint),
	"checkpoint":     messages[protocol.CheckpointRequest]((*Service).checkpoint),
	"getrpo":         messages[protocol.GetRpoRequest]((*Service).getRPO),
	"getrpobyoffset": messages[protocol.GetRpoRequest]((*Service).getRPOByOffset),
	"schedule":       messages[protocol.ScheduleRequest]((*Service).schedule),
}

// missing are operations of the service that the emulator lacks. The Go SDK says
// that switch is for internal use only.
var missing = []string{"switch"}

// messages turns a function on protobuf messages into an operation. Unknown
// fields are ignored, since newer SDKs send some; a missing required field is
// an error of the client's. A nil response has an empty body.
func messages[Req any, PReq interface {
	*Req
	protoadapt.MessageV1
}](f func(*Service, PReq) (protoadapt.MessageV1, error)) operation {
	return func(s *Service, body, dst []byte) ([]byte, error) {
		req := PReq(new(Req))
		if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(body, protoadapt.MessageV2Of(req)); err != nil {
			return nil, wire.Invalid("malformed request: %v", err)
		}
		resp, err := f(s, req)
		if err != nil {
			return nil, err
		}
		if resp == nil {
			return dst, nil
		}
		dst, err = proto.MarshalOptions{}.MarshalAppend(dst, protoadapt.MessageV2Of(resp))
		if err != nil {
			return nil, wire.Errorf(wire.CodeInternalServerError, "encode the answer: %v", err)
		}
		return dst, nil
	}
}
