package verifiers

import (
	"os/exec"
	"sync"
	"unsafe"

	"golang.org/x/sys/windows"
)

// A family is a program and all that it starts. They are a job, which ends with its
// last handle.
type family struct {
	cmd *exec.Cmd

	mu  sync.Mutex // guards job, which is 0 if there is none
	job windows.Handle
}

func newFamily(cmd *exec.Cmd) *family {
	f := &family{cmd: cmd}
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return f
	}
	limits := windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION{
		BasicLimitInformation: windows.JOBOBJECT_BASIC_LIMIT_INFORMATION{LimitFlags: windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE},
	}
	if _, err := windows.SetInformationJobObject(job, windows.JobObjectExtendedLimitInformation,
		uintptr(unsafe.Pointer(&limits)), uint32(unsafe.Sizeof(limits))); err != nil {
		windows.CloseHandle(job)
		return f
	}
	f.job = job
	return f
}

// started puts the program into the job, and with it what it starts from now on.
func (f *family) started() {
	process, err := windows.OpenProcess(windows.PROCESS_SET_QUOTA|windows.PROCESS_TERMINATE, false, uint32(f.cmd.Process.Pid))
	if err != nil {
		return
	}
	defer windows.CloseHandle(process)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.job != 0 {
		windows.AssignProcessToJobObject(f.job, process)
	}
}

// end ends all of them; it may be called again.
func (f *family) end() {
	f.mu.Lock()
	if f.job != 0 {
		windows.CloseHandle(f.job)
		f.job = 0
	}
	f.mu.Unlock()
	if f.cmd.Process != nil {
		f.cmd.Process.Kill() // which may not have been in the job
	}
}
