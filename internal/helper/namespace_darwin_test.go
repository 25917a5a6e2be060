package helper

import "os/exec"

func inNewNamespace(string) *exec.Cmd { panic("there are none") }
