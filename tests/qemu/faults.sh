#!/bin/sh
# A fault of Parapet's own ends the run with status 4 and a report that says where. Prints TAP.
cd "$(dirname "$0")/../.." || exit 1
. tests/qemu/common.inc

# fault NAME REPORT FUNCTION: the image's option test-fault=NAME; what is said; who is to blame
fault() {
	export PARAPET_OPTIONS="test-fault=$1"
	run paravisor 100 --cpus 2
	[ "$status" -eq 4 ] && said "$2"
	ok "test-fault=$1: status 4, and the report says $2"
	said "$3\\+0x" && said 'handling exit: CPUID of VP 0'
	ok "test-fault=$1: the backtrace names $3, and the exit is named"
}

fault page 'Parapet itself faulted: #PF, error code 0x0,' fault_test_page
fault text 'Parapet itself faulted: #PF, error code 0x3,' fault_test_text
fault data 'Parapet itself faulted: #PF, error code 0x11,' vp_run
fault stack 'Parapet itself faulted: #DF' recurse
fault stop 'Parapet stops: a test asked for it' vp_run
finish
