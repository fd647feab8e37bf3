package router_test
import ("log/slog";"os";"github.com/ThreeDotsLabs/watermill")
func init() { if os.Getenv("DBG")!="" { dbg = watermill.NewSlogLogger(slog.New(slog.NewTextHandler(os.Stderr,&slog.HandlerOptions{Level: slog.LevelDebug}))) } }
