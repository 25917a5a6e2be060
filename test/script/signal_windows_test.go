package script_test

import "os"

var terminate, hangup = os.Kill, os.Kill // there is nothing gentler
