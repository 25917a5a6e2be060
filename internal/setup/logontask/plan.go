package logontask

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tunneld/tunneld/internal/setup"
)

// A Wish is what a plan is made for.
type Wish struct {
	// SID is the user.
	SID string
	// ProgramFiles and System are Windows' directories for programs, those of others
	// and its own.
	ProgramFiles, System string
	// State and Environment are the user's state directory, and the file in it that has
	// the captured environment. Missing are those directories of the user's that a
	// daemon would have to make, the outermost first.
	State, Environment string
	Missing            []string
	// Domain is of the user's configuration.
	Domain string
	// Content has the programs, by their names without .exe.
	Content map[string][]byte
	// Without are the steps to leave out.
	Without []string
}

// Steps are those of a plan, in their order. There is none for names: nothing does on
// Windows what tunneld-helper does elsewhere.
func Steps() []string { return []string{setup.ServiceStep, setup.EnvironmentStep, setup.TrustStep} }

// ProgramDir is where programs and the definitions of tasks are put. Only
// administrators may write there.
func ProgramDir(programFiles string) string { return programFiles + `\tunneld` }

func definitionPath(programFiles, sid string) string {
	return ProgramDir(programFiles) + `\` + TaskName(sid) + ".xml"
}

// isSID reports whether s is a user's SID in letters, which becomes part of paths and of
// command lines.
func isSID(s string) bool {
	rest, ok := strings.CutPrefix(s, "S-1-")
	return ok && rest != "" && strings.Trim(rest, "-0123456789") == ""
}

// Plan is what has to be there for w, in the order in which it is made.
func Plan(w Wish) ([]setup.Item, error) {
	if !isSID(w.SID) {
		return nil, fmt.Errorf("%q is no SID", w.SID)
	}
	dir := ProgramDir(w.ProgramFiles)
	daemon, definition := dir+`\tunneld.exe`, definitionPath(w.ProgramFiles, w.SID)
	text, err := Definition(w.SID, daemon, w.System)
	if err != nil {
		return nil, err
	}
	// Modes are no more here than whether a file may be written; who may is inherited
	// from the directory.
	const mode = 0o666
	plan := []setup.Item{
		setup.DirectoryItem(setup.ServiceStep, dir, "for the programs"),
		setup.FileItem(setup.ServiceStep, daemon, mode, w.Content["tunneld"], "out of other programs' reach"),
		setup.FileItem(setup.ServiceStep, dir+`\tunnelctl.exe`, mode, w.Content["tunnelctl"], "out of other programs' reach"),
		setup.FileItem(setup.ServiceStep, definition, mode, text, "how the task scheduler runs the daemon"),
		setup.HomeItem(w.State, w.Missing),
		setup.EnvironmentItem(w.Environment),
		{
			Change: setup.Change{
				Step: setup.ServiceStep, Kind: setup.Service, Path: TaskName(w.SID),
				Why: "the daemon, as the user, from logon on", Undo: "ended, and the task deleted",
			},
			Runs: []string{definition, daemon},
		},
		setup.TrustItem(w.Domain),
	}
	return slices.DeleteFunc(plan, func(i setup.Item) bool { return slices.Contains(w.Without, i.Step) }), nil
}
