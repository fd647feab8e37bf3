package wire

import "testing"

func TestErrorf(t *testing.T) {
	t.Run("gives each code the status that the service documents", func(t *testing.T) {
		for code, want := range map[string]int{
			CodeParameterInvalid: 400, CodeTunnelExpired: 400, CodeSequenceNumberNotMatch: 400,
			"OTSPermissionDenied": 403, CodeTunnelExist: 409, CodeResourceGone: 410,
			CodeTunnelServerUnavailable: 503, CodeRequestBodyTooLarge: 413, CodeConditionCheckFail: 403,
			CodeObjectNotExist: 404, CodeAuthFailed: 403,
		} {
			if got := Errorf(code, "x").Status; got != want {
				t.Errorf("status of %s = %d, want %d", code, got, want)
			}
		}
	})
	t.Run("keeps the tunnel id", func(t *testing.T) {
		if e := ResourceGone("t1", "client %s", "c"); e.TunnelID != "t1" || e.Message != "client c" {
			t.Errorf("got %+v", e)
		}
	})
}
