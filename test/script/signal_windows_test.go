package script_test

import "os"

var terminate = os.Kill // there is nothing gentler
