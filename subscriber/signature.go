package subscriber

import (
	"fmt"
)

// regionAdvice is the part of an advice about refused credentials that only
// signature version 4 needs.
func (s *Subscriber) regionAdvice() string {
	if s.cfg.Region == "" {
		return ""
	}
	return fmt.Sprintf(", that Config.Region %q is the region of the instance", s.cfg.Region)
}
