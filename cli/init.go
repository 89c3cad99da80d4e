package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/templates"
)

func (a *app) initCommand() *cobra.Command {
	var name, from, stage string
	cmd := &cobra.Command{
		Use:     "init [DIR]",
		Short:   "Start from a template, or from another tool's project",
		GroupID: groupApps,
		Long: "Write a small app that works into DIR (default: here), ready for \"lull deploy\".\n" +
			"A file that is there already is never touched.\n\n" +
			"With --from genezio the project in DIR is kept, and what its genezio.yaml says is written as lull.yaml.\n\nTemplates:\n" + templateList(),
		Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := append(args, ".")[0]
			switch from {
			case "":
				return a.initDir(name, dir)
			case "genezio":
				return a.initProject(cmd.Context(), dir, stage)
			}
			return &usageError{command: "lull init", message: fmt.Sprintf("there is no way from %q: only from genezio", from)}
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "write lull.yaml for the project of another tool: genezio")
	cmd.Flags().StringVar(&stage, "stage", "", "with --from: stage, part of the apps' names unless it is prod")
	complete(cmd, "from", []string{"genezio"})
	cmd.Flags().StringVarP(&name, "template", "t", templates.Default, "which template")
	complete(cmd, "template", templateNames())
	return cmd
}

func (a *app) initDir(name, dir string) error {
	template, ok := templates.Find(name)
	if !ok {
		return &usageError{command: "lull init",
			message: fmt.Sprintf("there is no template %q: choose from %s", name, strings.Join(templateNames(), ", "))}
	}
	path := a.path(dir)
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		return &lull.Error{Kind: lull.KindInvalid, Message: dir + " is a file", Hint: "name a directory"}
	}
	taken, err := template.Write(path)
	switch {
	case len(taken) > 0:
		return &lull.Error{Kind: lull.KindConflict,
			Message: fmt.Sprintf("%s has %s already: nothing was written", dir, strings.Join(taken, ", ")),
			Hint:    "name an empty directory, such as: lull init my-" + name}
	case err != nil:
		return fmt.Errorf("write the template: %w", err)
	}
	a.say("wrote the template %q to %s", name, dir)
	for _, file := range template.Files() {
		a.say("  %s", filepath.Join(dir, file))
	}
	a.say("deploy it with: lull deploy%s", argument(dir))
	return nil
}

// argument returns dir as an argument of "lull deploy", which needs none for the working directory.
func argument(dir string) string {
	if filepath.Clean(dir) == "." {
		return ""
	}
	return " " + dir
}

func templateNames() []string {
	var names []string
	for _, t := range templates.All() {
		names = append(names, t.Name)
	}
	return names
}

func templateList() string {
	var list strings.Builder
	for _, t := range templates.All() {
		fmt.Fprintf(&list, "  %-10s %s\n", t.Name, t.Summary)
	}
	return strings.TrimRight(list.String(), "\n")
}

// path makes dir absolute, from the working directory of this run.
func (a *app) path(dir string) string {
	if filepath.IsAbs(dir) {
		return filepath.Clean(dir)
	}
	return filepath.Join(a.env.Dir, dir)
}

func complete(cmd *cobra.Command, flag string, values []string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag's name is misspelt in the lines above the call
	}
}
