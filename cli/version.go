package cli

import (
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"
)

func (a *app) versionCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		GroupID: groupRest,
		Args:    exactly(0),
		RunE: func(*cobra.Command, []string) error {
			if asJSON {
				return writeJSON(a.env.Stdout, map[string]string{"version": a.env.Version, "go": runtime.Version(),
					"platform": runtime.GOOS + "/" + runtime.GOARCH})
			}
			_, err := io.WriteString(a.env.Stdout, a.versionLine())
			return err
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func (a *app) versionLine() string {
	return fmt.Sprintf("lull %s (%s, %s/%s)\n", a.env.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
