package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

// strict makes the commands that cobra brings along (help, completion) refuse what they do not know, as the others do.
// Their output must have been set before.
func strict(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "help":
			cmd.Args = topic
		case "completion":
			cmd.Args = shell
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
}

// topic wants the name of a command.
func topic(help *cobra.Command, args []string) error {
	root := help.Root()
	found, rest, err := root.Find(args)
	switch {
	case err != nil:
		return err
	case len(rest) == 0:
		return nil
	case found == root:
		return unknownCommand(root, rest)
	}
	return &usageError{message: fmt.Sprintf("%s has no command %q", found.Name(), rest[0]), command: found.CommandPath()}
}

// shell is reached with arguments only if the first names no shell.
func shell(completion *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	message := fmt.Sprintf("there is no completion for %q: choose", args[0])
	for i, cmd := range completion.Commands() {
		if i > 0 {
			message += " or"
		}
		message += " " + cmd.Name()
	}
	return &usageError{message: message, command: completion.CommandPath()}
}
