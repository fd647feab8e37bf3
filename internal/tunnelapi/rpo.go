package tunnelapi

import "github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

// ReadPoints returns what an answer of getrpo says about each channel. Whether its outer keys
// are tunnels or clients does not matter: the inner ones are channels [docs/protocol.md, Recovery points].
func ReadPoints(resp *tunnel.GetRpoResponse) map[string]*tunnel.RpoLatency {
	points := make(map[string]*tunnel.RpoLatency)
	for _, byChannel := range resp.RpoInfos {
		for id, p := range byChannel {
			if p != nil && (points[id] == nil || p.AccessTime > points[id].AccessTime) {
				points[id] = p
			}
		}
	}
	return points
}
