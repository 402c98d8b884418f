/* What `parapet help` prints. Text only. */
#include "tools/help.h"

#include "tools/run_options.h"

void help_print(FILE *out)
{
	fputs("usage: parapet run [OPTIONS] [-- QEMU OPTIONS]   boot a guest under Parapet\n"
	      "       parapet doctor                            what this computer can run\n"
	      "       parapet help [run|doctor]                 more about a command\n"
	      "       parapet --version\n"
	      "\n"
	      "`parapet run` without options boots the demo guest that the build assembles.\n",
		out);
}

void help_print_run(FILE *out)
{
	fprintf(out,
		"usage: parapet run [OPTIONS] [-- QEMU OPTIONS]\n"
		"\n"
		"Boots a guest on every processor of a QEMU machine, under Parapet. Standard "
		"output is\n"
		"the guest's console and nothing else, standard input goes to it; on a terminal "
		"Ctrl-A X\n"
		"ends the run (Ctrl-A twice sends one). Parapet speaks on standard error.\n"
		"\n"
		"The guest:\n"
		"  --kernel FILE         Linux bzImage with a 64-bit entry, or 32-bit Multiboot v1 "
		"ELF\n"
		"                        (the demo guest)\n"
		"  --initrd FILE         its initrd, or its Multiboot module\n"
		"  --append TEXT         its command line (Linux: \"console=ttyS0 panic=-1\")\n"
		"\n"
		"The machine:\n"
		"  --cpus N              processors, 1 to %u (%u)\n"
		"  --memory SIZE         memory, with K, M or G; a plain number is MiB; from %lluM "
		"(%lluM)\n"
		"  --accel auto|tcg|tcg-single|kvm\n"
		"                        QEMU's software CPU (tcg), or KVM where it offers nested "
		"SVM\n"
		"                        (auto: kvm if it does, else tcg); tcg-single has all "
		"processors\n"
		"                        take turns in one thread: no races of QEMU's own, but "
		"slower\n"
		"  -- QEMU OPTIONS       further options for QEMU, such as devices\n"
		"\n"
		"Parapet:\n"
		"  --platform svm        what runs the guest; svm is the only one yet\n"
		"  --ap-start mailbox|sipi            how the guest starts its processors (%s)\n"
		"  --tlb-flush auto|hypercall|ipi     how the guest flushes other TLBs (%s)\n"
		"  --protect kernel      seals a Linux guest's code and read-only data once it has "
		"booted:\n"
		"                        writes are denied and reported, its own patching goes on\n"
		"  --vp-stride N         for testing: numbers the guest's VPs 0, N, 2N, ..., which "
		"makes it\n"
		"                        name sets of processors in the sparse form (1)\n"
		"  --interrupt-exits     external interrupts come to Parapet before the guest takes "
		"them\n"
		"                        (they do not exit: that is slower, and meant for tests)\n"
		"  --vsm                 lets the guest bring a secure kernel, which runs in VTL1 "
		"(it may not);\n"
		"                        does not go with --protect kernel\n"
		"  --allow-io FIRST-LAST opens more ports to the guest, in hexadecimal; may be "
		"repeated\n"
		"  --no-paravisor        boots the guest on the bare machine instead, to compare. "
		"QEMU\n"
		"                        cannot tell a triple fault from a reset there: both are "
		"resets.\n"
		"\n"
		"The run:\n"
		"  --timeout SECONDS     ends the run with status 3 if the guest still runs then "
		"(never)\n"
		"  --stats FILE          writes what was counted and measured as one JSON object\n"
		"  --trace FILE          writes what happened when, for Perfetto and "
		"chrome://tracing\n"
		"  --verbose, -v         shows what Parapet has to say, and how QEMU is started\n"
		"  --help, -h            this\n"
		"\n"
		"An isa-debug-exit device after -- is found by itself: writing 0 to it is a good "
		"end.\n"
		"\n"
		"Exit status: 0 the guest ended well (power-off, reset, 0 to the exit device)\n"
		"             1 the guest failed (panic, triple fault, not 0 to the exit device)\n"
		"             2 the guest was not started: bad usage, bad files, something is "
		"missing\n"
		"             3 timeout\n"
		"             4 Parapet itself failed, or QEMU died under it\n"
		"             128 + N ended by signal N; 130 also for Ctrl-A X\n"
		"\n"
		"Environment: PARAPET_QEMU         the QEMU to use (qemu-system-x86_64 on the "
		"PATH)\n"
		"             PARAPET_IMAGE        Parapet's image (parapet.elf beside this "
		"command)\n"
		"             PARAPET_START_LIMIT  seconds that Parapet has for its first word "
		"(30)\n"
		"             TMPDIR               where the private directory of a run is made "
		"(/tmp)\n"
		"\n"
		"Examples:    parapet run\n"
		"             parapet run --cpus 8 --stats run.json\n"
		"             parapet run --kernel test.elf --allow-io f4-f7 --timeout 60 \\\n"
		"                     -- -device isa-debug-exit,iobase=0xf4,iosize=4\n",
		(unsigned)RUN_CPUS_MAX, (unsigned)RUN_CPUS_DEFAULT, RUN_MEMORY_MIN >> 20,
		RUN_MEMORY_DEFAULT >> 20, run_ap_start_name(RUN_AP_START_DEFAULT),
		run_tlb_flush_name(RUN_TLB_FLUSH_DEFAULT));
}

void help_print_doctor(FILE *out)
{
	fputs("usage: parapet doctor\n"
	      "\n"
	      "Looks at this computer and says line by line what is there, what is missing and "
	      "what to\n"
	      "do about it. Changes nothing.\n"
	      "\n"
	      "Exit status: 0 the demo guest can run, 2 it cannot.\n",
		out);
}
