package usage_test

import (
	"errors"
	"io"
	"testing"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/usage"
)

func TestMistakes(t *testing.T) {
	failed := errors.New("failed")
	tests := []struct {
		name       string
		args       []string
		text, hint string // no text: no error; no hint: not a mistake
	}{
		{"nothing", nil, "", ""},
		{"a good one", []string{"move", "a", "b"}, "", ""},
		{"a good one that fails", []string{"end"}, "failed", ""},
		{"an argument too few", []string{"move", "a"}, "wrong number of arguments: got 1, expected prog move FROM TO", "prog help move"},
		{"an argument too many", []string{"end", "a"}, "wrong number of arguments: got 1, expected prog end", "prog help end"},
		{"a mistyped command", []string{"mvoe", "a", "b"}, `unknown command "mvoe"`, "did you mean move?"},
		{"a mistyped alias", []string{"stpo"}, `unknown command "stpo"`, "did you mean stop?"},
		{"a mistyped command with a flag", []string{"mvoe", "a", "--force"}, `unknown command "mvoe"`, "did you mean move?"},
		{"a mistyped help", []string{"hlep"}, `unknown command "hlep"`, "did you mean help?"},
		{"a command like no other", []string{"frobnicate"}, `unknown command "frobnicate"`, "prog help"},
		{"a hidden one mistyped", []string{"completoin"}, `unknown command "completoin"`, "prog help"},
		{"help about a mistyped one", []string{"help", "mvoe"}, `unknown command "mvoe"`, "did you mean move?"},
		{"help about what a command does not have", []string{"help", "move", "a"}, `unknown command "a"`, "prog help"},
		{"an unknown flag", []string{"move", "--frobnicate"}, "unknown flag: --frobnicate", "prog help move"},
		{"an unknown flag of the program", []string{"--frobnicate"}, "unknown flag: --frobnicate", "prog help"},
		{"a hint of its own", []string{"move", "a", "a"}, "there already", "stay"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := &cobra.Command{Use: "prog"}
			usage.Setup(root)
			move := &cobra.Command{Use: "move FROM TO", Args: usage.Args(cobra.ExactArgs(2)), RunE: func(_ *cobra.Command, args []string) error {
				if args[0] == args[1] {
					return usage.WithHint(errors.New("there already"), "stay")
				}
				return nil
			}}
			move.Flags().Bool("force", false, "")
			end := &cobra.Command{Use: "end", Aliases: []string{"stop"}, Args: usage.Args(cobra.NoArgs), RunE: func(*cobra.Command, []string) error { return failed }}
			root.AddCommand(move, end)
			root.SetArgs(append([]string{}, tt.args...))
			root.SetOut(io.Discard)
			root.SetErr(io.Discard)
			cmd, err := root.ExecuteC()
			text := ""
			if err != nil {
				text = err.Error()
			}
			if text != tt.text {
				t.Errorf("error %q; want %q", text, tt.text)
			}
			if got := usage.Hint(cmd, err); got != tt.hint {
				t.Errorf("hint %q; want %q", got, tt.hint)
			}
			if got := usage.Is(err); got != (tt.hint != "") {
				t.Errorf("Is a mistake: %v", got)
			}
		})
	}
}
