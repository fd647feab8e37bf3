package router

// Stopping reports whether the drain has begun.
func Stopping(r *Router) bool {
	select {
	case <-r.stopping:
		return true
	default:
		return false
	}
}
