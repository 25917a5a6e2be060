package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/tls/caenv"
	"github.com/tunneld/tunneld/internal/usage"
)

// syntaxes are how shells set a variable and forget one; quote makes a value that the shell
// takes as it stands.
var syntaxes = map[string]struct {
	set, unset string
	quote      func(string) string
}{
	"sh":         {"export %s=%s\n", "unset %s\n", singleQuoted(`'\''`)},
	"fish":       {"set -gx %s %s\n", "set -e %s\n", fishQuoted},
	"powershell": {"$Env:%s = %s\n", "Remove-Item Env:%s -ErrorAction SilentlyContinue\n", singleQuoted(`''`)},
}

// singleQuoted quotes for shells in which nothing but the quote itself, written as
// escaped, is special between single quotes.
func singleQuoted(escaped string) func(string) string {
	return func(s string) string { return "'" + strings.ReplaceAll(s, "'", escaped) + "'" }
}

// fishQuoted quotes for fish, where a backslash escapes itself and the quote.
func fishQuoted(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

func newEnvironment(ui *ui, client *localapi.Client) *cobra.Command {
	var shell string
	var java, unset bool
	cmd := &cobra.Command{
		Use:   "env",
		Short: "Print variables for programs that have a list of CAs of their own",
		Long: `Print environment variables with which programs that bring a list of CAs of their
own, such as Node and Python's requests, trust the local CA, too. It is what to do
for a program that "tunnelctl trust --check" says to refuse it, and where the
system's trust store cannot be changed.

Variables that replace a program's list name a file of that list and the local
CA. It is made anew by each call, so call it where your shell starts.`,
		Example: `  eval "$(tunnelctl env)"
  tunnelctl env --shell fish | source
  eval "$(tunnelctl env --unset)"`,
		Args: usage.Args(cobra.NoArgs),
	}
	format := output(cmd, "json")
	flags := cmd.Flags()
	flags.StringVar(&shell, "shell", "", "syntax: sh, fish or powershell (default that of $SHELL)")
	flags.BoolVar(&java, "java", false, "JAVA_TOOL_OPTIONS, too, of which every Java program then tells on standard error")
	flags.BoolVar(&unset, "unset", false, "print what undoes it")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if shell == "" {
			shell = defaultShell()
		}
		syntax, ok := syntaxes[shell]
		if !ok {
			return usage.Errorf("shell %q is not known: use sh, fish or powershell", shell)
		}
		env, err := newEnv()
		if err != nil {
			return err
		}
		vars := env.Unmake()
		if !unset {
			if vars, err = makeEnv(cmd.Context(), ui, client, env, java); err != nil {
				return err
			}
		}
		if *format == "json" {
			return ui.json(slices.Concat([]caenv.Var{}, vars))
		}
		for _, v := range vars {
			if v.Value == "" {
				fmt.Fprintf(ui.out, syntax.unset, v.Name)
			} else {
				fmt.Fprintf(ui.out, syntax.set, v.Name, syntax.quote(v.Value))
			}
		}
		return nil
	}
	return cmd
}

// makeEnv makes the files, and the variables that name them.
func makeEnv(ctx context.Context, ui *ui, client *localapi.Client, env *caenv.Env, java bool) ([]caenv.Var, error) {
	text, err := client.RootPEM(ctx)
	if err != nil {
		return nil, err
	}
	root, err := trusted{PEM: string(text)}.root()
	if err != nil {
		return nil, err
	}
	vars, err := env.Make(root)
	if errors.Is(err, caenv.ErrNoList) {
		ui.note(err.Error() + ", so there are only variables that add to a program's own")
	} else if err != nil {
		return nil, err
	}
	if !java {
		return vars, nil
	}
	v, err := env.Java(root)
	if errors.Is(err, caenv.ErrOtherStore) {
		return nil, &localapi.Error{Message: err.Error(), Hint: "import the root certificate into that one: tunnelctl trust --pem"}
	}
	return append(vars, v), err
}

// newEnv is the environment of this user.
func newEnv() (*caenv.Env, error) {
	dir, err := userTrustDir()
	if err != nil {
		return nil, err
	}
	return &caenv.Env{Dir: filepath.Join(dir, "env"), Getenv: os.Getenv, System: caenv.SystemBundles()}, nil
}

func defaultShell() string {
	switch {
	case filepath.Base(os.Getenv("SHELL")) == "fish":
		return "fish"
	case runtime.GOOS == "windows" && os.Getenv("SHELL") == "":
		return "powershell"
	}
	return "sh"
}
