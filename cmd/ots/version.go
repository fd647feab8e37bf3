package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// build is what "ots version" shows.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Modified bool   `json:"modified,omitempty"` // the work tree had changes
	Go       string `json:"go"`
	Platform string `json:"platform"`
	SDK      string `json:"tablestore_sdk,omitempty"`
}

// sdkModule is the module path of the Tablestore SDK.
const sdkModule = "github.com/aliyun/aliyun-tablestore-go-sdk"

// thisBuild returns what the binary knows of itself.
func thisBuild() build {
	b := build{Version: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.Version = info.Main.Version
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			b.Commit = setting.Value
		case "vcs.modified":
			b.Modified = setting.Value == "true"
		}
	}
	for _, dep := range info.Deps {
		if dep.Path == sdkModule {
			b.SDK = dep.Version
		}
	}
	return b
}

// newVersion returns the command version.
func newVersion() *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version of ots, of Go and of the Tablestore SDK",
		Example: "  ots version\n  ots version -o json",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := out.check(); err != nil {
				return err
			}
			b := thisBuild()
			return out.print(cmd.OutOrStdout(), b, func(t *tabwriter.Writer) {
				commit := ""
				if b.Commit != "" {
					commit = ", commit " + b.Commit
					if b.Modified {
						commit += " with changes"
					}
				}
				fmt.Fprintf(t, "ots %s (%s, %s%s)\n", b.Version, b.Go, b.Platform, commit)
			})
		},
	}
	out.addFlag(cmd)
	return cmd
}
