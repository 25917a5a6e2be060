package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tunneld/tunneld/internal/invoker"
	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/tls/caenv"
	"github.com/tunneld/tunneld/internal/tls/truststore/held"
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
		who, err := invoker.Find(cmd.Context())
		if err != nil {
			return err
		}
		if who.Sudo {
			return usage.WithHint(errors.New("the variables are for a shell of your own, and the files for your home"), "tunnelctl env, without sudo")
		}
		if err := who.CheckHome(); err != nil {
			return &localapi.Error{Message: err.Error(), Hint: "run it as that user"}
		}
		env := newEnv(who)
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
	vars, notes, err := env.Make(root)
	if err != nil {
		return nil, err
	}
	for _, note := range notes {
		ui.note(note)
	}
	if !java {
		return vars, nil
	}
	v, err := env.Java(root)
	if err != nil {
		ui.note("JAVA_TOOL_OPTIONS is left as it is: " + err.Error())
		return vars, nil
	}
	return append(vars, v), nil
}

// newEnv is the environment of a user.
func newEnv(who invoker.User) *caenv.Env {
	return &caenv.Env{Dir: filepath.Join(userDir(who), "env"), Getenv: os.Getenv, System: held.Bundles(), Git: gitList}
}

// gitList is the list of CAs that git is configured with; empty if with none.
func gitList() string {
	out, err := exec.Command("git", "config", "--global", "--get", "--type=path", "http.sslCAInfo").Output()
	if err != nil {
		return "" // there is no git, or it says nothing
	}
	return strings.TrimRight(string(out), "\r\n")
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
