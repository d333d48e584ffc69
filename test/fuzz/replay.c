/*
 * replay.c
 *	  Runs a fuzz target on all files of some directories, without libFuzzer.
 *
 * Any compiler will do.  Each directory is one test.  An input on which a
 * property does not hold ends the program, after its name was printed.
 */
#include "postgres_fe.h"

#include <dirent.h>
#include <signal.h>
#include <unistd.h>

#include "fuzz.h"

#include "tap.h"

/* The input that is running */
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

static void
stop(void)
{
	perror(path);
	exit(2);
}

/* An input in memory that ends where it ends, so that a sanitizer sees that. */
static uint8_t *
read_input(size_t *size)
{
	FILE	   *file = fopen(path, "rb");
	uint8_t    *data;

	if (file == NULL || fseek(file, 0, SEEK_END) != 0)
		stop();
	*size = ftell(file);
	rewind(file);
	data = malloc(*size);
	if (data == NULL && *size > 0)
		stop();
	if (fread(data, 1, *size, file) != *size)
		stop();
	fclose(file);
	return data;
}

static int
is_input(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

/* How many inputs there are in the directory, each of which held. */
static int
replay_directory(const char *directory)
{
	struct dirent **entries;
	int			count;

	strlcpy(path, directory, sizeof(path));
	count = scandir(directory, &entries, is_input, alphasort);
	if (count < 0)
		stop();
	for (int i = 0; i < count; i++)
	{
		size_t		size;
		uint8_t    *data;

		snprintf(path, sizeof(path), "%s/%s", directory, entries[i]->d_name);
		data = read_input(&size);
		LLVMFuzzerTestOneInput(data, size);
		free(data);
		free(entries[i]);
	}
	free(entries);
	return count;
}

int
main(int argc, char **argv)
{
	signal(SIGABRT, report_path);
	signal(SIGSEGV, report_path);
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 1; i < argc; i++)
	{
		int			count = replay_directory(argv[i]);

		tap_ok(count > 0, "%s: %d inputs", argv[i], count);
	}
	return tap_done();
}
