/*
 * replay.c
 *	  Runs a fuzz target on all files of some directories, without libFuzzer.
 *
 * Works with any compiler.  Each directory is one test.  If a property does not
 * hold for an input, its name is printed and the program ends.
 */
#include "postgres_fe.h"

#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"

#include "tap.h"

/* The current input */
static char path[MAXPGPATH];

static void
report_path(int signal_number pg_attribute_unused())
{
	static const char start[] = "not ok - on input ";

	if (write(STDOUT_FILENO, start, strlen(start)) > 0 &&
		write(STDOUT_FILENO, path, strlen(path)) > 0 &&
		write(STDOUT_FILENO, "\n", 1) > 0)
		_exit(1);
	_exit(2);
}

/* The memory has the size of the input, so that a sanitizer sees its end. */
static void
replay_file(void)
{
	FILE	   *file = fopen(path, "rb");
	struct stat status;
	uint8_t    *data;

	if (file == NULL || fstat(fileno(file), &status) != 0 ||
		(data = malloc(status.st_size)) == NULL ||
		fread(data, 1, status.st_size, file) != (size_t) status.st_size)
	{
		perror(path);
		exit(2);
	}
	fclose(file);
	LLVMFuzzerTestOneInput(data, status.st_size);
	free(data);
}

int
main(int argc, char **argv)
{
	signal(SIGABRT, report_path);
	signal(SIGSEGV, report_path);
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 1; i < argc; i++)
	{
		DIR		   *directory = opendir(argv[i]);
		struct dirent *entry;
		int			count = 0;

		while (directory && (entry = readdir(directory)) != NULL)
		{
			if (entry->d_name[0] == '.')
				continue;
			snprintf(path, sizeof(path), "%s/%s", argv[i], entry->d_name);
			replay_file();
			count++;
		}
		tap_ok(count > 0, "%s: %d inputs", argv[i], count);
	}
	return tap_done();
}
